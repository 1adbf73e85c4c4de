// Memory that is asked for before its turn, a few lines at every step of a product.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "simd.h"

namespace millstream {

constexpr int LINE = 64;  // bytes of a line of the processor's cache

// What is read some time later, in the order of its use. Threads that multiply take from it.
class PrefetchQueue {
 public:
  struct Range {
    const char *start, *end;
  };

  int64_t size() const { return size_; }  // bytes, taken or not

  void clear() {
    ranges_.clear();
    next_.store(0, std::memory_order_relaxed);
    size_ = 0;
  }

  void add(const char* start, int64_t size) {
    ranges_.push_back({start, start + size});
    size_ += size;
  }

  // The next ranges, so many bytes or a little more, that nobody has taken: from, to.
  std::pair<const Range*, const Range*> take(int64_t bytes) {
    if (ranges_.empty()) return {};
    size_t mean = size_ / ranges_.size(), count = bytes / mean + 1;
    size_t number = std::min(next_.fetch_add(count, std::memory_order_relaxed), ranges_.size());
    const Range* first = ranges_.data() + number;
    return {first, first + std::min(count, ranges_.size() - number)};
  }

 private:
  std::vector<Range> ranges_;
  std::atomic<size_t> next_{0};
  int64_t size_ = 0;
};

// What one thread asks for: memory that is needed soon, then some of what is needed later. Evenly:
// the processor keeps only so many requests, and waits when there are more.
class Prefetcher {
  static constexpr int PARTS = 16;  // of a line, in which the pace is counted

 public:
  Prefetcher() = default;
  Prefetcher(const char* start, int64_t size) : next_(start), end_(start + size) {}

  // What comes after, if there is anything.
  void then(PrefetchQueue* queue, int64_t bytes) {
    if (queue) std::tie(range_, last_range_) = queue->take(bytes);
  }
  bool has_more() const { return range_ < last_range_; }

  // The first bytes only, and nothing else.
  Prefetcher front(int64_t bytes) const { return {next_, std::min(bytes, end_ - next_)}; }

  // So many lines in so many calls of fetch().
  void set_pace(int64_t lines, int64_t calls) {
    pace_ = (lines * PARTS + calls - 1) / calls;
    owed_ = 0;
  }

  INLINE void fetch() {
    for (owed_ += pace_; owed_ >= PARTS; owed_ -= PARTS, next_ += LINE) {
      if (next_ >= end_) {
        if (range_ == last_range_) return set_pace(0, 1);
        next_ = range_->start, end_ = range_->end;
        range_++;
      }
      __builtin_prefetch(next_, 0, 2);
    }
  }

 private:
  const char *next_ = nullptr, *end_ = nullptr;
  const PrefetchQueue::Range *range_ = nullptr, *last_range_ = nullptr;
  int pace_ = 0, owed_ = 0;
};

}  // namespace millstream
