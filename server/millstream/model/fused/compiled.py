"""A stack's layers handed to the compiled decoder, which runs all of them in one call.

Rules: only what the decoder knows is handed over: gated MLPs, and linear layers that are one merged
layer each, plain or packed. It is kept if it gives the logits that Python gives, for a token that
decodes and a chunk of prompt at once. Other stacks are run by Python, layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from millstream.model.batch import DecodeGroup, PromptPart
from millstream.model.forward import Forward
from millstream.model.fused.layer import Layer
from millstream.model.fused.observe import Sample
from millstream.model.fused.parts import GatedMLP, Joined, Norm
from millstream.model.fused.stack import DecoderStack
from millstream.model.kv_cache import KVCache, LayerShape
from millstream.model.native.kernels import Kernels
from millstream.model.native_attention import CompiledDecoder, NativeBatch
from millstream.model.native_linear import NativeInt8Linear, NativeLinear
from millstream.model.packing import PackedLinear, is_plain
from millstream.model.probe import MODEL_FAILURES, logits_difference

_BLOCK_SIZE = 4
_NATIVE = (NativeLinear, NativeInt8Linear)
TOLERANCE = {torch.bfloat16: 5e-2, torch.float32: 1e-4}
"""Of logits that another way of running the layers gives, relative to their spread."""


class UnknownPartError(Exception):
    """What the compiled decoder does not know, in a few words."""


def compile_stack(
    stack: DecoderStack,
    forward: Forward,
    sample: Sample,
    *,
    kernels: Kernels,
    shapes: Mapping[int, LayerShape],
    dtype: torch.dtype,
) -> str | None:
    """Lets the stack run as one call from now on, or says why not. forward: of its model."""
    logits = partial(_logits, forward, sample, kernels, shapes, dtype)
    try:
        found = compiled(stack.layers, kernels)
        expected = logits()
        stack.compiled = found
        if logits_difference(logits(), expected) <= TOLERANCE[dtype]:
            return None
        reason = "it computes something else"
    except UnknownPartError as error:
        reason = str(error)
    except MODEL_FAILURES as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    stack.compiled = None
    return reason


def _logits(
    forward: Forward,
    sample: Sample,
    kernels: Kernels,
    shapes: Mapping[int, LayerShape],
    dtype: torch.dtype,
) -> Tensor:
    """Of the sample over a cache of its own: first its last token, then the others as a chunk."""
    count = sample.input_ids.shape[1]
    blocks = -(-count // _BLOCK_SIZE)
    cache = KVCache(
        dict(shapes),
        num_blocks=blocks,
        block_size=_BLOCK_SIZE,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    order, table = torch.arange(count).roll(1), torch.arange(blocks).unsqueeze(0)
    last = DecodeGroup(slice(0, 1), table, torch.tensor([count - 1]))
    others = [PromptPart(1, count - 1, 0, table)] if count > 1 else []
    batch = NativeBatch(cache, order, [last], others, kernels=kernels)
    return Sample(sample.input_ids[:, order], sample.positions[:, order]).run(forward, batch)


def compiled(layers: Sequence[Layer], kernels: Kernels) -> CompiledDecoder:
    """Raises UnknownPartError."""
    if kernels.classes is None:
        raise UnknownPartError("kernels in plain torch")
    decoder = kernels.classes.Decoder()
    is_whole = True
    for layer in layers:
        if not isinstance(layer.mlp, GatedMLP):
            raise UnknownPartError("another MLP")
        _add(decoder, layer, layer.mlp, kernels)
        linears = (layer.qkv, layer.out, layer.mlp.inner, layer.mlp.down)
        is_whole &= all(type(joined.linears[0]) in _NATIVE for joined in linears)
    return CompiledDecoder(decoder, tuple(layer.index for layer in layers), is_whole)


def _add(decoder: Any, layer: Layer, mlp: GatedMLP, kernels: Kernels) -> None:
    options = layer.options
    gate = "silu" if mlp.gated is kernels.silu_mul else "gelu_tanh"
    decoder.add_layer(
        (layer.heads, layer.kv_heads, layer.dim),
        _norm(layer.attention_norm, kernels),
        _linear(layer.qkv, kernels),
        None if layer.q_norm is None else _norm(layer.q_norm, kernels),
        None if layer.k_norm is None else _norm(layer.k_norm, kernels),
        layer.is_rotary,
        options.scale,
        options.window,
        options.softcap,
        options.sinks,
        _linear(layer.out, kernels),
        _norm(layer.mlp_norm, kernels),
        _linear(mlp.inner, kernels),
        gate,
        _linear(mlp.down, kernels),
    )


def _norm(norm: Norm, kernels: Kernels) -> Any:
    return kernels.classes.Norm(norm.weight, norm.eps, norm.unit_offset)


def _linear(joined: Joined, kernels: Kernels) -> Any:
    if len(joined.linears) > 1:
        raise UnknownPartError("linear layers that cannot be merged")
    make, linear = kernels.classes.Linear, joined.linears[0]
    if type(linear) is NativeInt8Linear:
        return make(linear.packed, linear.out_features, linear.bias, linear.sums, linear.scales)
    if type(linear) in (NativeLinear, PackedLinear):
        return make(linear.packed, linear.out_features, linear.bias, None, None)
    if is_plain(linear):
        return make(linear.weight.detach(), linear.out_features, linear.bias, None, None)
    raise UnknownPartError(f"{type(linear).__name__} layers")
