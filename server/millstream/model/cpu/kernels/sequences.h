// Which rows of a batch are one sequence, and which slots hold its state before and after them.
#pragma once

#include <vector>

#include "tensors.h"

namespace millstream {

constexpr int64_t NO_STATE = -1;  // the source of a sequence that begins

class Sequences {
 public:
  // sources, targets [n], firsts [n + 1]: the first row of each sequence, and `rows`.
  Sequences(const Tensor& sources, const Tensor& targets, const Tensor& firsts, int64_t rows,
            int64_t slots)
      : sources_(sources), targets_(targets), firsts_(firsts), count_(sources.numel()) {
    TORCH_CHECK(targets.numel() == count_ && firsts.numel() == count_ + 1,
                "sources, targets and firsts do not fit each other");
    TORCH_CHECK(firsts_[0] == 0 && firsts_[count_] == rows,
                "the sequences do not have the rows of the batch");
    for (int64_t i = 0; i < count_; i++) {
      TORCH_CHECK(firsts_[i] <= firsts_[i + 1], "sequences overlap");
      TORCH_CHECK(source(i) >= NO_STATE && source(i) < slots, "no such source: ", source(i));
      TORCH_CHECK(target(i) >= 0 && target(i) < slots, "no such target: ", target(i));
    }
    find_groups(slots);
  }

  int64_t first(int64_t i) const { return firsts_[i]; }
  int64_t length(int64_t i) const { return firsts_[i + 1] - firsts_[i]; }
  int64_t source(int64_t i) const { return sources_[i]; }
  int64_t target(int64_t i) const { return targets_[i]; }

  // Calls work(sequence, part) for all sequences and 0 <= part < parts, on all threads. A sequence
  // that has to do with a slot which an earlier one writes comes after it, as does one that writes
  // what an earlier one reads; the others may be computed at once.
  template <typename F>
  void each(int64_t parts, F&& work) const {
    each_unit(int64_t(groups_.size()) * parts, [&](int64_t unit, int) {
      size_t group = unit / parts;
      int64_t end = group + 1 < groups_.size() ? groups_[group + 1] : count_;
      for (int64_t i = groups_[group]; i < end; i++) work(i, unit % parts);
    });
  }

 private:
  // Groups are sequences one after the other in the batch, by the first of them.
  void find_groups(int64_t slots) {
    std::vector<int64_t> reader(slots, count_), writer(slots, count_);
    for (int64_t i = 0; i < count_; i++) {
      int64_t from = source(i), to = target(i), earliest = std::min(reader[to], writer[to]);
      if (from != NO_STATE) {
        earliest = std::min(earliest, writer[from]);
        reader[from] = std::min(reader[from], i);
      }
      writer[to] = std::min(writer[to], i);
      groups_.push_back(i);
      while (groups_.back() > earliest) groups_.pop_back();
    }
  }

  Indices sources_, targets_, firsts_;
  int64_t count_;
  std::vector<int64_t> groups_;
};

}  // namespace millstream
