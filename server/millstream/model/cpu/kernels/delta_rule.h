// The gated delta rule, token by token: a matrix of floats for each head of a sequence, which
// decays, takes in a key with a value, and is read by a query.
//
// A unit of work is a few columns of one head's matrix, for all tokens of the sequence. They are
// copied to a tile that stays in the first cache, whatever the matrix's layout does to it.
#pragma once

#include <ATen/ops/empty.h>

#include <cmath>
#include <vector>

#include "elementwise.h"
#include "sequences.h"

namespace millstream {

class DeltaRule {
  static constexpr int VECTORS = 2, COLUMNS = VECTORS * WIDTH;  // of a tile
  static constexpr int CHAINS = 4;  // sums over the tile's rows that do not wait for each other
  static constexpr float EPSILON = 1e-6f;

 public:
  DeltaRule(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& g,
            const Tensor& beta, const Tensor& states, const Sequences& sequences, bool normalise,
            const Tensor& out)
      : query_(query), key_(key), value_(value), g_(g), beta_(beta), states_(states),
        sequences_(sequences), normalise_(normalise), out_(out), heads_(value.size(1)),
        key_heads_(key.size(1)), dim_(key.size(2)), value_dim_(value.size(2)),
        num_decays_(g.dim() == 3 ? dim_ : 1) {
    auto rows = value.size(0);
    TORCH_CHECK(query.sizes() == key.sizes() && key.size(0) == rows && key_heads_ > 0 && dim_ > 0 &&
                heads_ % key_heads_ == 0, "queries or keys do not fit the values");
    TORCH_CHECK(g.numel() == rows * heads_ * num_decays_ && g.size(0) == rows && g.size(1) == heads_ &&
                beta.size(0) == rows && beta.size(1) == heads_, "g or beta do not fit the values");
    TORCH_CHECK(states.size(1) == heads_ && states.size(2) == dim_ &&
                states.size(3) == value_dim_ && states.is_contiguous(),
                "the states do not fit the keys and values, or are not contiguous");
    for (const Tensor& x : {query, key, value})
      TORCH_CHECK(x.stride(2) == 1 || x.size(2) == 1, "last dimension must be contiguous");
    TORCH_CHECK(g.is_contiguous() && beta.is_contiguous(), "g and beta must be contiguous");
    TORCH_CHECK(g.scalar_type() == at::kFloat && states.scalar_type() == at::kFloat,
                "g and the states are float32");
    TORCH_CHECK(beta.scalar_type() == at::kFloat || beta.scalar_type() == value.scalar_type(),
                "beta is float32, or of the dtype of the values");
  }

  template <typename T>
  void run() {
    int64_t tiles = (value_dim_ + COLUMNS - 1) / COLUMNS;
    sequences_.each(heads_ * tiles, [&](int64_t sequence, int64_t part) {
      some_columns<T>(sequence, part / tiles, part % tiles * COLUMNS);
    });
  }

 private:
  // A row of a tile; its vectors do not straddle cache lines.
  struct alignas(64) TileRow {
    float columns[COLUMNS];
  };

  // What one token does to a head: `dim` numbers of each, and zeros up to a multiple of CHAINS.
  struct Token {
    explicit Token(int64_t size) : key(size), query(size), decay(size), decayed_key(size) {}
    std::vector<float> key, query, decay, decayed_key;
  };

  template <typename T>
  void some_columns(int64_t sequence, int64_t head, int64_t column) {
    int64_t size = padded(dim_, CHAINS), columns = std::min<int64_t>(COLUMNS, value_dim_ - column);
    auto cut = [&](int64_t slot) {
      return data<float>(states_) + (slot * heads_ + head) * dim_ * value_dim_ + column;
    };
    std::vector<TileRow> tile(size);
    if (int64_t source = sequences_.source(sequence); source != NO_STATE)
      for (int64_t row = 0; row < dim_; row++)
        copy(cut(source) + row * value_dim_, columns, tile[row].columns);
    Token token(size);
    const T* query = head_of<T>(query_, head / (heads_ / key_heads_));
    const T* key = head_of<T>(key_, head / (heads_ / key_heads_));
    const T* values = head_of<T>(value_, head) + column;
    const float* g = head_of<float>(g_, head);
    bool is_wide = beta_.scalar_type() == at::kFloat;
    const void* beta = beta_.data_ptr();
    T* out = data<T>(out_) + head * value_dim_ + column;
    int64_t first = sequences_.first(sequence), end = first + sequences_.length(sequence);
    for (int64_t row = first; row < end; row++) {
      read_row(query + row * query_.stride(0), 1 / std::sqrt(float(dim_)), token.query.data());
      read_row(key + row * key_.stride(0), 1, token.key.data());
      read_decay(g + row * g_.stride(0), token);
      T value[COLUMNS] = {}, found[COLUMNS];
      copy(values + row * value_.stride(0), columns, value);
      int64_t where = row * heads_ + head;
      float part = is_wide ? static_cast<const float*>(beta)[where]
                           : to_float(static_cast<const bf16*>(beta)[where]);
      step(token, size, value, part, tile.data(), found);
      copy(found, columns, out + row * heads_ * value_dim_);
    }
    float* target = cut(sequences_.target(sequence));
    for (int64_t row = 0; row < dim_; row++)
      copy(tile[row].columns, columns, target + row * value_dim_);
  }

  template <typename T>
  static INLINE void copy(const T* from, int64_t count, T* to) {
    if (count == COLUMNS)
      std::memcpy(to, from, COLUMNS * sizeof(T));
    else
      std::memcpy(to, from, count * sizeof(T));
  }

  // Where a head of a tensor [T, heads, ...] begins, in its first row.
  template <typename T>
  static const T* head_of(const Tensor& tensor, int64_t head) {
    return data<T>(tensor) + head * tensor.stride(1);
  }

  // A query or key as floats times `factor`, of length 1 before that if that is asked for.
  template <typename T>
  void read_row(const T* from, float factor, float* to) const {
    if (normalise_) {
      Vec squares = {};
      each_vector(dim_, [&](int64_t i, auto count) {
        Vec x = load_some(from + i, count);
        squares += x * x;
      });
      factor *= 1 / std::sqrt(sum(squares) + EPSILON);
    }
    each_vector(dim_, [&](int64_t i, auto count) {
      store_some(to + i, load_some(from + i, count) * factor, count);
    });
  }

  void read_decay(const float* g, Token& token) const {
    Vec common = exp(splat(g[0]));
    each_vector(dim_, [&](int64_t i, auto count) {
      Vec decay = num_decays_ == 1 ? common : exp(load_some(g + i, count));
      store_some(&token.decay[i], decay, count);
      store_some(&token.decayed_key[i], decay * load_some(&token.key[i], count), count);
    });
  }

  // One token: the tile of `size` rows decays, what it holds for the key is moved towards the
  // value by beta, and out = what it then holds for the query.
  template <typename T>
  static INLINE void step(const Token& token, int64_t size, const T* value, float beta,
                          TileRow* tile, T* out) {
    Vec held[CHAINS][VECTORS] = {}, found[CHAINS][VECTORS] = {};
    const float *key = token.key.data(), *decay = token.decay.data();
    const float *query = token.query.data(), *decayed_key = token.decayed_key.data();
    for (int64_t row = 0; row < size; row += CHAINS)
      for (int c = 0; c < CHAINS; c++)
        for (int v = 0; v < VECTORS; v++)
          held[c][v] += load(tile[row + c].columns + v * WIDTH) * decayed_key[row + c];
    Vec change[VECTORS];
    for (int v = 0; v < VECTORS; v++)
      change[v] = (load(value + v * WIDTH) - total_of(held, v)) * beta;
    for (int64_t row = 0; row < size; row += CHAINS)
      for (int c = 0; c < CHAINS; c++)
        for (int v = 0; v < VECTORS; v++) {
          float* at = tile[row + c].columns + v * WIDTH;
          Vec now = load(at) * decay[row + c] + change[v] * key[row + c];
          store(at, now);
          found[c][v] += now * query[row + c];
        }
    for (int v = 0; v < VECTORS; v++) store(out + v * WIDTH, total_of(found, v));
  }

  static INLINE Vec total_of(const Vec (&sums)[CHAINS][VECTORS], int v) {
    static_assert(CHAINS == 4);
    return (sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]);
  }

  Tensor query_, key_, value_, g_, beta_, states_;
  const Sequences& sequences_;
  bool normalise_;
  Tensor out_;
  int64_t heads_, key_heads_, dim_, value_dim_, num_decays_;
};

inline Tensor gated_delta_rule(const Tensor& query, const Tensor& key, const Tensor& value,
                               const Tensor& g, const Tensor& beta, const Tensor& states,
                               const Tensor& sources, const Tensor& targets,
                               const Tensor& firsts, bool normalise) {
  TORCH_CHECK(query.dim() == 3 && key.dim() == 3 && value.dim() == 3 && states.dim() == 4 &&
              (g.dim() == 2 || g.dim() == 3) && beta.dim() == 2, "wrong number of dimensions");
  Tensor out = at::empty(value.sizes(), value.options());
  Sequences sequences(sources, targets, firsts, value.size(0), states.size(0));
  DeltaRule work(query, key, value, g, beta, states, sequences, normalise, out);
  by_dtype({query, key, value}, [&](auto t) { work.run<decltype(t)>(); });
  return out;
}

}  // namespace millstream
