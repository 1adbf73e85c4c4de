// The kernels as torch operators: checks of what they are given, and registration. Their meaning is
// in model/reference.py and model/recurrent_reference.py: the same functions in plain torch.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "decode.h"
#include "decoder.h"
#include "delta_rule.h"
#include "grouped.h"
#include "int8.h"
#include "linear.h"
#include "row_kernels.h"
#include "prefill.h"
#include "short_convolution.h"
#include "tensors.h"

namespace millstream {
namespace {

Tensor empty_result(const Tensor& query, const Tensor& values) {
  TORCH_CHECK(query.dim() == 3 && values.dim() == 4, "wrong number of dimensions");
  return at::empty({query.size(0), query.size(1), values.size(3)}, query.options());
}

Tensor paged_attention_decode(const Tensor& query, const Tensor& key_cache,
                              const Tensor& value_cache, const Tensor& block_tables,
                              const Tensor& positions, double scale,
                              std::optional<int64_t> window, std::optional<double> softcap,
                              const MaybeTensor& sinks) {
  TORCH_CHECK(block_tables.dim() == 2, "wrong number of dimensions");
  Tensor out = empty_result(query, value_cache);
  Tensor tables = block_tables.contiguous(), last = positions.contiguous();
  Decode decode(query.contiguous(), key_cache, value_cache, tables, last, scale, window, softcap,
                sinks, out);
  by_dtype({query, key_cache, value_cache}, [&](auto t) { decode.run<decltype(t)>(); });
  return out;
}

Tensor paged_attention_prefill(const Tensor& query, const Tensor& key_cache,
                               const Tensor& value_cache, const Tensor& block_tables,
                               const Tensor& starts, const Tensor& lengths, double scale,
                               std::optional<int64_t> window, std::optional<double> softcap,
                               const MaybeTensor& sinks) {
  TORCH_CHECK(block_tables.dim() == 2, "wrong number of dimensions");
  Tensor out = empty_result(query, value_cache), tables = block_tables.contiguous();
  Prefill prefill(query.contiguous(), key_cache, value_cache, tables, starts, lengths, scale,
                  window, softcap, sinks, out);
  by_dtype({query, key_cache, value_cache}, [&](auto t) { prefill.run<decltype(t)>(); });
  return out;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, bool unit_offset) {
  Tensor out = at::empty(x.sizes(), x.options());
  rms_norm_out(x, {weight, eps, unit_offset}, out);
  return out;
}

std::tuple<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual,
                                        const Tensor& weight, double eps, bool unit_offset) {
  Tensor total = at::empty(x.sizes(), x.options()), out = at::empty(x.sizes(), x.options());
  add_rms_norm_out(x, residual, {weight, eps, unit_offset}, total, out);
  return {out, total};
}

Tensor gated(Gate gate, const Tensor& merged) {
  Tensor out = at::empty({merged.size(0), merged.size(-1) / 2}, merged.options());
  gated_out(gate, merged, out);
  return out;
}

Tensor silu_mul(const Tensor& merged) { return gated(Gate::silu, merged); }

Tensor gelu_tanh_mul(const Tensor& merged) { return gated(Gate::gelu_tanh, merged); }

std::tuple<Tensor, Tensor> rotary_to_cache(const Tensor& query, const Tensor& key,
                                           const Tensor& value, const Tensor& cos,
                                           const Tensor& sin, const Tensor& slots,
                                           const Tensor& key_cache, const Tensor& value_cache) {
  Tensor to_query = at::empty(query.sizes(), query.options());
  Tensor to_key = at::empty(key.sizes(), key.options());
  heads_to_cache(query, key, value, nullptr, nullptr, {cos, sin, slots}, key_cache, value_cache,
                 to_query, to_key);
  return {to_query, to_key};
}

void use_threads(int64_t count) {
  TORCH_CHECK(count >= AS_MANY_AS_TORCH, "no such number of threads: ", count);
  chosen_threads = count;
}

std::tuple<bool, bool, bool, bool> fast_products() {
  return {Bfloat16Format::IS_FAST, Int8Format::IS_FAST, Int12Format::IS_FAST, GROUPS_ARE_FAST};
}

TORCH_LIBRARY(millstream, library) {
  library.class_<NormLayer>("Norm").def(torch::init<Tensor, double, bool>());
  library.class_<LinearLayer>("Linear")
      .def(torch::init<Tensor, int64_t, MaybeTensor, MaybeTensor, MaybeTensor>());
  library.class_<Decoder>("Decoder")
      .def(torch::init<>())
      .def("add_layer", &Decoder::add_layer)
      .def("set_ends", &Decoder::set_ends)
      .def("logits", &Decoder::logits)
      .def("run", &Decoder::run);
  library.def(
      "paged_attention_decode(Tensor query, Tensor key_cache, Tensor value_cache, "
      "Tensor block_tables, Tensor positions, *, float scale, int? window=None, "
      "float? softcap=None, Tensor? sinks=None) -> Tensor");
  library.def(
      "paged_attention_prefill(Tensor query, Tensor key_cache, Tensor value_cache, "
      "Tensor block_tables, Tensor starts, Tensor lengths, *, float scale, int? window=None, "
      "float? softcap=None, Tensor? sinks=None) -> Tensor");
  library.def("fast_products() -> (bool, bool, bool, bool)", &fast_products);
  library.def("use_threads(int count) -> ()", &use_threads);
  library.def("pack_weight(Tensor weight, *, int activation_bits=8) -> Tensor");
  library.def("packed_linear(Tensor x, Tensor packed, int outputs, Tensor? bias=None) -> Tensor");
  library.def(
      "int8_linear(Tensor x, Tensor packed, Tensor sums, Tensor scales, Tensor? bias=None) "
      "-> Tensor");
  library.def(
      "grouped_linear(Tensor x, Tensor packed, Tensor scales, Tensor? bias=None) -> Tensor");
  library.def("rms_norm(Tensor x, Tensor weight, float eps, *, bool unit_offset=False) -> Tensor");
  library.def(
      "add_rms_norm(Tensor x, Tensor residual, Tensor weight, *, float eps, "
      "bool unit_offset=False) -> (Tensor, Tensor)");
  library.def("best_tokens(Tensor x) -> Tensor");
  library.def("silu_mul(Tensor merged) -> Tensor");
  library.def("gelu_tanh_mul(Tensor merged) -> Tensor");
  library.def(
      "rotary_to_cache(Tensor query, Tensor key, Tensor value, *, Tensor cos, Tensor sin, "
      "Tensor slots, Tensor(a!) key_cache, Tensor(b!) value_cache) -> (Tensor, Tensor)");
  library.def(
      "short_convolution(Tensor x, Tensor weight, Tensor? bias, *, Tensor(a!) states, "
      "Tensor sources, Tensor targets, Tensor firsts, bool silu=False) -> Tensor");
  library.def(
      "gated_delta_rule(Tensor query, Tensor key, Tensor value, *, Tensor g, Tensor beta, "
      "Tensor(a!) states, Tensor sources, Tensor targets, Tensor firsts, bool normalise=False) "
      "-> Tensor");
}

TORCH_LIBRARY_IMPL(millstream, CPU, library) {
  library.impl("paged_attention_decode", &paged_attention_decode);
  library.impl("paged_attention_prefill", &paged_attention_prefill);
  library.impl("pack_weight", &pack_weight);
  library.impl("packed_linear", &packed_linear);
  library.impl("int8_linear", &int8_linear);
  library.impl("grouped_linear", &grouped_linear);
  library.impl("rms_norm", &rms_norm);
  library.impl("add_rms_norm", &add_rms_norm);
  library.impl("best_tokens", &best_tokens);
  library.impl("silu_mul", &silu_mul);
  library.impl("gelu_tanh_mul", &gelu_tanh_mul);
  library.impl("rotary_to_cache", &rotary_to_cache);
  library.impl("short_convolution", &short_convolution);
  library.impl("gated_delta_rule", &gated_delta_rule);
}

}  // namespace
}  // namespace millstream
