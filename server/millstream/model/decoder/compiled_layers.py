"""A stack's layers handed to the compiled decoder, which runs all of them in one call.

Rules: only what the decoder knows is handed over: gated MLPs, and linear layers that are one merged
layer each, plain or packed. It is kept if it gives the logits that Python gives, for a token that
decodes and a chunk of prompt at once. Other stacks are run by Python, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from millstream.model.checks.model_failures import MODEL_FAILURES, in_short
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.linears import (
    NativeGroupedLinear,
    NativeInt8Linear,
    NativeLinear,
    PackedLinear,
    is_plain,
)
from millstream.model.decoder.parts import GatedMLP, Joined
from millstream.model.decoder.runs import PathComparison
from millstream.model.decoder.stack import CompiledDecoder, DecoderLayer, DecoderStack
from millstream.model.layer_operations import Norm
from millstream.model.tolerance import STACKED_LOGITS, logits_difference

_NATIVE = (NativeLinear, NativeInt8Linear, NativeGroupedLinear)


class UnknownPartError(Exception):
    """What the compiled decoder does not know, in a few words."""


def compile_stack(stack: DecoderStack, comparison: PathComparison) -> str | None:
    """Lets the stack run as one call from now on, or says why not. comparison: of its model."""
    try:
        decoder = compiled(stack.layers, comparison.kernels)
        expected = comparison.logits()
        stack.compiled = decoder
        difference = logits_difference(comparison.logits(), expected)
        if difference <= STACKED_LOGITS[comparison.dtype]:
            return None
        reason = "it computes something else"
    except UnknownPartError as error:
        reason = str(error)
    except MODEL_FAILURES as error:
        reason = in_short(error)
    stack.compiled = None
    return reason


def compiled(layers: Sequence[DecoderLayer], kernels: Kernels) -> CompiledDecoder:
    """The layers as one compiled object. Raises UnknownPartError if it does not know a part."""
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


def _add(decoder: Any, layer: DecoderLayer, mlp: GatedMLP, kernels: Kernels) -> None:
    options = layer.options
    gate = "silu" if mlp.gated is kernels.silu_mul else "gelu_tanh"
    decoder.add_layer(
        (layer.heads, layer.kv_heads, layer.dim),
        made_norm(layer.attention_norm, kernels),
        _linear(layer.qkv, kernels),
        None if layer.q_norm is None else made_norm(layer.q_norm, kernels),
        None if layer.k_norm is None else made_norm(layer.k_norm, kernels),
        layer.is_rotary,
        options.scale,
        options.window,
        options.softcap,
        options.sinks,
        _linear(layer.out, kernels),
        made_norm(layer.mlp_norm, kernels),
        _linear(mlp.inner, kernels),
        gate,
        _linear(mlp.down, kernels),
    )


def made_norm(norm: Norm, kernels: Kernels) -> Any:
    """The norm as the decoder takes it."""
    return kernels.classes.Norm(norm.weight, norm.eps, norm.unit_offset)


def _linear(joined: Joined, kernels: Kernels) -> Any:
    if len(joined.linears) > 1:
        raise UnknownPartError("linear layers that cannot be merged")
    return made_linear(joined.linears[0], kernels)


def made_linear(linear: nn.Module, kernels: Kernels) -> Any:
    """The linear layer as the decoder takes it. Raises UnknownPartError."""
    make = kernels.classes.Linear
    if type(linear) is NativeInt8Linear:
        return make(linear.packed, linear.out_features, linear.bias, *linear.per_channel)
    if type(linear) is NativeGroupedLinear:
        return make(linear.packed, linear.out_features, linear.bias, None, *linear.per_channel)
    if type(linear) in (NativeLinear, PackedLinear):
        return make(linear.packed, linear.out_features, linear.bias, None, None)
    if is_plain(linear):
        return make(linear.weight.detach(), linear.out_features, linear.bias, None, None)
    raise UnknownPartError(f"{type(linear).__name__} layers")
