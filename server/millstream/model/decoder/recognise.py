"""Is a model made of the usual decoder layers? The answer comes from a run of the model itself.

No model is known by name here. A layer has to have modules of the usual names, and the parts among
them, norms and gated MLPs, were recognised on their own (see parts.py). What the layer's own code
does between its parts is judged by a run, of which `observe()` tells what went in and out of every
part. It has to follow from the formulas of stack.py: the same bits for sums and for what is handed
on, the same up to rounding for rotated queries and keys, at positions from the first to the last.
And the layer may call no operator that these formulas do not have, or a case that the run does not
reach could compute something else.

Rule: whatever differs is an UnusualError, and the model keeps its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from millstream.model.decoder.called_operators import GLUE
from millstream.model.decoder.parts import GatedMLP, Joined
from millstream.model.decoder.runs import Call, Observed
from millstream.model.decoder.stack import DecoderLayer, DecoderStack
from millstream.model.layer_operations import LayerOperations, Norm
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.reference import rotate
from millstream.model.tolerance import is_close

_CHILDREN = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


class UnusualError(Exception):
    """Why the layers cannot be run as a stack, in a few words."""


@dataclass(frozen=True, slots=True)
class LayerModules:
    """The modules of one decoder layer. qkv: one linear layer, or one each for q, k and v."""

    attention_norm: nn.Module
    qkv: tuple[nn.Module, ...]
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    out: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module

    @classmethod
    def of(cls, layer: nn.Module) -> LayerModules:
        """The modules of `layer`, by their usual names. Raises UnusualError if there are others."""
        children = dict(layer.named_children())
        others = {
            name for name, child in children.items() if not isinstance(child, nn.Dropout)
        } ^ _CHILDREN
        if others:
            raise UnusualError(f"its layers differ by {', '.join(sorted(others))}")
        inner = dict(children["self_attn"].named_children())
        qkv = ("qkv_proj",) if "qkv_proj" in inner else ("q_proj", "k_proj", "v_proj")
        if not {*qkv, "o_proj"} <= set(inner):
            raise UnusualError("its attention has other projections")
        return cls(
            attention_norm=children["input_layernorm"],
            qkv=tuple(inner[name] for name in qkv),
            q_norm=inner.get("q_norm"),
            k_norm=inner.get("k_norm"),
            out=inner["o_proj"],
            mlp_norm=children["post_attention_layernorm"],
            mlp=children["mlp"],
        )

    def modules(self) -> Iterator[nn.Module]:
        """All of them, each once."""
        yield from (self.attention_norm, *self.qkv, self.out, self.mlp_norm, self.mlp)
        yield from (norm for norm in (self.q_norm, self.k_norm) if norm is not None)


@dataclass(frozen=True, slots=True)
class RecognisedParts:
    """What was recognised before the layers are: norms and gated MLPs, by module.

    shapes: what each layer stores in the cache, by its index.
    """

    operations: LayerOperations
    norms: Mapping[nn.Module, Norm]
    mlps: Mapping[nn.Module, GatedMLP]
    shapes: Mapping[int, LayerShape]

    def norm(self, module: nn.Module) -> Norm:
        """The norm that the module is. Raises UnusualError if it is not one that is recognised."""
        if module not in self.norms:
            raise UnusualError(f"its {type(module).__name__} is another norm")
        return self.norms[module]


def recognise_layers(
    layers: nn.ModuleList, parts: list[LayerModules], recognised: RecognisedParts, seen: Observed
) -> DecoderStack:
    """The layers as one module, over their own parts.

    parts: the modules of each layer. seen: a run of the model. Raises UnusualError, with what
    differs, if any of the layers is not a usual one.
    """
    if unknown := sorted(seen.operations - GLUE):
        raise UnusualError(f"its layers call {unknown[0]}")
    calls = [_call(seen, layer) for layer in layers]
    for before, after in pairwise(calls):
        _require(
            after.args[0] is before.output
            and after.kwargs["position_embeddings"] is before.kwargs["position_embeddings"],
            "its layers are not called one after the other, with the same positions",
        )
    stacked = [
        _layer(index, part, call, recognised, seen)
        for index, (part, call) in enumerate(zip(parts, calls, strict=True))
    ]
    others = [part.mlp for part in parts if part.mlp not in recognised.mlps]
    return DecoderStack(stacked, recognised.operations, others)


def _layer(
    index: int, parts: LayerModules, outer: Call, recognised: RecognisedParts, seen: Observed
) -> DecoderLayer:
    """One layer of the stack. outer: the call of the layer in the run."""
    _require(index in seen.attention, "its layers are numbered otherwise")
    shape, attention = recognised.shapes[index], seen.attention[index]
    _require(shape.key_dim == shape.value_dim, "its values are not as wide as its keys")
    layer = DecoderLayer(
        index=index,
        heads=attention.query.shape[1],
        kv_heads=shape.kv_heads,
        dim=shape.key_dim,
        attention_norm=recognised.norm(parts.attention_norm),
        qkv=Joined(parts.qkv),
        q_norm=recognised.norm(parts.q_norm) if parts.q_norm is not None else None,
        k_norm=recognised.norm(parts.k_norm) if parts.k_norm is not None else None,
        is_rotary=True,
        options=attention.options,
        out=Joined([parts.out]),
        mlp_norm=recognised.norm(parts.mlp_norm),
        mlp=recognised.mlps.get(parts.mlp) or _unbatched(parts.mlp),
    )
    _require(
        all(len(norm.weight) == layer.dim for norm in (layer.q_norm, layer.k_norm) if norm),
        "its queries and keys are normalised over all heads",
    )
    _check_sums(parts, outer, seen, attention.out)
    projected = torch.cat([_call(seen, module).output[0] for module in parts.qkv], dim=-1)
    query, key, value = DecoderStack([layer], recognised.operations).heads(layer, projected)
    _require(torch.equal(value, attention.value), "its values are changed before attention")
    cos, sin = _angles(outer)
    wanted = attention.query, attention.key
    if all(map(is_close, (rotate(query, cos, sin), rotate(key, cos, sin)), wanted)):
        return layer
    _require(all(map(is_close, (query, key), wanted)), "its positions are encoded otherwise")
    return replace(layer, is_rotary=False)


def _check_sums(parts: LayerModules, outer: Call, seen: Observed, attended: Tensor) -> None:
    """Raises UnusualError unless the parts are given what the stack would give them, to the bit.

    attended: [T, heads, d], the result of attention.
    """
    hidden = outer.args[0]
    norm = _call(seen, parts.attention_norm)
    out, mlp_norm, mlp = (_call(seen, part) for part in (parts.out, parts.mlp_norm, parts.mlp))
    middle = hidden + out.output
    pairs = [
        (norm.args[0], hidden),
        *((_call(seen, module).args[0], norm.output) for module in parts.qkv),
        (out.args[0], attended.flatten(1).unsqueeze(0)),
        (mlp_norm.args[0], middle),
        (mlp.args[0], mlp_norm.output),
        (outer.output, middle + mlp.output),
    ]
    _require(
        all(torch.equal(actual, wanted) for actual, wanted in pairs),
        "its layers put their parts together otherwise",
    )


def _angles(outer: Call) -> tuple[Tensor, Tensor]:
    """cos and sin [T, r], as the layer gets them."""
    hidden, angles = outer.args[0], outer.kwargs["position_embeddings"]
    _require(
        isinstance(angles, tuple)
        and len(angles) == 2
        and all(isinstance(part, Tensor) and part.dtype == hidden.dtype for part in angles)
        and angles[0].shape == angles[1].shape == (1, hidden.shape[1], angles[0].shape[-1]),
        "its positions come in another form",
    )
    return angles[0][0], angles[1][0]


def _call(seen: Observed, module: nn.Module) -> Call:
    """The one call of a module that takes one tensor and gives one. Raises UnusualError."""
    call = seen.call(module)
    if call is None or len(call.args) != 1 or not isinstance(call.output, Tensor):
        raise UnusualError(f"its {type(module).__name__} is called otherwise")
    return call


def _require(is_so: Any, otherwise: str) -> None:
    if not is_so:
        raise UnusualError(otherwise)


def _unbatched(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module as a function of [T, n] instead of [1, T, n]."""
    return lambda hidden: module(hidden.unsqueeze(0))[0]
