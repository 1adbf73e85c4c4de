// Which rows a step has, and which of them its last layer has to finish.
#pragma once

#include <ATen/ops/tensor.h>

#include <vector>

#include "tensors.h"

namespace millstream {

// First one row of each sequence that decodes, then those of prompt chunks.
struct StepRows {
  Tensor cos, sin, slots;
  MaybeTensor tables, positions;              // of rows that decode
  MaybeTensor chunk_tables, starts, lengths;  // of chunks

  int64_t decodes() const { return positions ? positions->numel() : 0; }
};

// What is left when the keys and values of all rows are in the cache: the rows that decode, and of
// each chunk those from the first one that is wanted to the last.
struct LastRows {
  // wanted [n]: of `step`, whose chunks have `tokens` rows less those that decode.
  LastRows(const StepRows& step, int64_t tokens, const Tensor& wanted) : attended(step) {
    Indices wanted_rows(wanted), starts(*step.starts), lengths(*step.lengths);
    std::vector<int64_t> kept, places(tokens, -1), chunks, new_starts, new_lengths;
    for (int64_t i = 0; i < wanted.numel(); i++) {
      TORCH_CHECK(wanted_rows[i] >= 0 && wanted_rows[i] < tokens, "there is no row ", wanted_rows[i]);
      places[wanted_rows[i]] = 0;
    }
    for (int64_t row = 0; row < step.decodes(); row++) kept.push_back(row);
    for (int64_t chunk = 0, row = step.decodes(); chunk < step.starts->numel(); chunk++) {
      int64_t first = row, end = row + lengths[chunk];
      TORCH_CHECK(end <= tokens, "the chunks have more than ", tokens, " tokens");
      row = end;
      while (first < end && places[first] < 0) first++;
      while (first < end && places[end - 1] < 0) end--;
      if (first == end) continue;
      chunks.push_back(chunk);
      new_starts.push_back(starts[chunk] + first - (row - lengths[chunk]));
      new_lengths.push_back(end - first);
      for (int64_t i = first; i < end; i++) kept.push_back(i);
    }
    for (size_t i = 0; i < kept.size(); i++) places[kept[i]] = i;
    std::vector<int64_t> found(wanted.numel());
    for (size_t i = 0; i < found.size(); i++) found[i] = places[wanted_rows[i]];
    rows = at::tensor(kept, at::kLong);
    this->wanted = at::tensor(found, at::kLong);
    attended.chunk_tables = attended.starts = attended.lengths = std::nullopt;
    if (chunks.empty()) return;
    attended.chunk_tables = step.chunk_tables->index_select(0, at::tensor(chunks, at::kLong));
    attended.starts = at::tensor(new_starts, at::kLong);
    attended.lengths = at::tensor(new_lengths, at::kLong);
  }

  Tensor rows;        // their numbers in the step [r]
  StepRows attended;  // the same as rows of a step; slots and angles are still those of all
  Tensor wanted;      // places in `rows` of what is wanted [n]
};

}  // namespace millstream
