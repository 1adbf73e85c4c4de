// The small operations between a decoder layer's matrix products, one row at a time. They round
// to the tensors' dtype wherever the eager operations they stand for do.
#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace millstream {

// f(i, count) for each vector of a row of n; count is WIDTH but for the last one.
template <typename F>
INLINE void each_vector(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) f(i, std::integral_constant<int, WIDTH>());
  if (i < n) f(i, int(n - i));
}

template <typename T>
INLINE Vec load_some(const T* from, std::integral_constant<int, WIDTH>) { return load(from); }
template <typename T>
INLINE Vec load_some(const T* from, int count) { return load_part(from, count); }
template <typename T>
INLINE void store_some(T* to, Vec x, std::integral_constant<int, WIDTH>) { store(to, x); }
template <typename T>
INLINE void store_some(T* to, Vec x, int count) { store_part(to, x, count); }

// total = x + residual (where there is one); out = total, normalised, times weight.
// unit_offset: times 1 + weight and rounded once (Gemma); otherwise rounded before the weight too.
template <typename T>
void rms_norm_row(const T* x, const T* residual, const T* weight, float eps, bool unit_offset,
                  int64_t n, T* total, T* out) {
  Vec squares = {};
  if (residual) {
    each_vector(n, [&](int64_t i, auto count) {
      Vec both = rounded<T>(load_some(x + i, count) + load_some(residual + i, count));
      store_some(total + i, both, count);
      squares += both * both;
    });
    x = total;
  } else {
    each_vector(n, [&](int64_t i, auto count) {
      Vec one = load_some(x + i, count);
      squares += one * one;
    });
  }
  float factor = 1.0f / std::sqrt(sum(squares) / n + eps);
  each_vector(n, [&](int64_t i, auto count) {
    Vec normal = load_some(x + i, count) * factor, by = load_some(weight + i, count);
    store_some(out + i, unit_offset ? normal * (1.0f + by) : rounded<T>(normal) * by, count);
  });
}

constexpr int64_t SOME = 1024;  // numbers of a row that are looked at together

// Index of the first number of a part of a row for which is_it(number), or its end.
template <typename T, typename F>
int64_t find_first(const T* row, int64_t begin, int64_t end, F&& is_it) {
  while (begin < end && !is_it(to_float(row[begin]))) begin++;
  return begin;
}

// Index of the largest number of a row, the first of equals; -1 if that is not finite, or if the
// row holds NaN.
template <typename T>
int64_t index_of_largest(const T* row, int64_t size) {
  float largest = -INFINITY;
  int64_t where = 0;  // largest is among the numbers that begin here
  auto is_nan = [](float x) { return x != x; };
  for (int64_t begin = 0; begin < size; begin += SOME) {
    int64_t end = std::min(begin + SOME, size), i = begin;
    Vec most = splat(-INFINITY);
    IntVec nans = {};
    for (; i + WIDTH <= end; i += WIDTH) {
      Vec x = load(row + i);
      nans |= x != x;
      most = larger(x, most);
    }
    float best = -INFINITY;
    for (int k = 0; k < WIDTH; k++) {
      if (nans[k]) return -1;
      best = std::max(best, most[k]);
    }
    if (find_first(row, i, end, is_nan) < end) return -1;
    for (; i < end; i++) best = std::max(best, to_float(row[i]));
    if (best > largest) largest = best, where = begin;
  }
  if (std::isinf(largest)) return -1;
  return find_first(row, where, size, [&](float x) { return x == largest; });
}

INLINE Vec silu(Vec x) { return x / (1.0f + exp(-x)); }

// x * (1 + tanh(u)) / 2 = x * sigmoid(2 u): the same, without the cancellation at negative x.
INLINE Vec gelu_tanh(Vec x) {
  return x / (1.0f + exp(-1.5957691216f * (x + 0.044715f * x * x * x)));
}

// out[i] = activation(gate[i]) * up[i]
template <typename T, typename F>
INLINE void gated_row(const T* gate, const T* up, int64_t n, T* out, F&& activation) {
  each_vector(n, [&](int64_t i, auto count) {
    Vec active = rounded<T>(activation(load_some(gate + i, count)));
    store_some(out + i, active * load_some(up + i, count), count);
  });
}

// Rotates the first `turned` of n elements: x * cos + (-second half, first half) * sin.
// x and out may be the same.
template <typename T>
INLINE void rotate_row(const T* x, const T* cos, const T* sin, int64_t turned, int64_t n, T* out) {
  int64_t half = turned / 2;
  each_vector(half, [&](int64_t i, auto count) {
    auto at = [&](const T* from) { return load_some(from + i, count); };
    Vec first = at(x), second = at(x + half);
    Vec a = rounded<T>(first * at(cos)) - rounded<T>(second * at(sin));
    Vec b = rounded<T>(second * at(cos + half)) + rounded<T>(first * at(sin + half));
    store_some(out + i, a, count);
    store_some(out + half + i, b, count);
  });
  if (turned < n && out != x) std::memcpy(out + turned, x + turned, (n - turned) * sizeof(T));
}

}  // namespace millstream
