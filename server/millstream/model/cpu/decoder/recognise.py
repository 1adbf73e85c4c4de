"""Is a model made of the usual decoder layers? Asked of a run of the model itself.

A layer is a usual one if what stands between its parts follows from `stack`'s formulas: the same
bits for sums and for what is handed on, up to rounding for rotated queries and keys, at positions
from the first to the last, and no operator that the formulas do not have. The parts were
recognised on their own; `observe` tells what went in and out of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from millstream.model.cpu.decoder.called_operators import GLUE
from millstream.model.cpu.decoder.parts import GatedMLP, Joined, Norm
from millstream.model.cpu.decoder.runs import Call, Observed
from millstream.model.cpu.decoder.stack import DecoderLayer, DecoderStack
from millstream.model.cpu.kernels import Kernels
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.reference import rotate
from millstream.model.tolerance import is_close

_LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


class UnusualError(Exception):
    """Why the layers cannot be run as a stack, in a few words."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules of one decoder layer, by their usual names. qkv: one merged, or three."""

    attention_norm: nn.Module
    qkv: tuple[nn.Module, ...]
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    out: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module

    @classmethod
    def of(cls, layer: nn.Module) -> Parts:
        """Raises UnusualError if there are others."""
        found = dict(layer.named_children())
        others = {name for name, part in found.items() if not isinstance(part, nn.Dropout)} ^ _LAYER
        if others:
            raise UnusualError(f"its layers differ by {', '.join(sorted(others))}")
        inner = dict(found["self_attn"].named_children())
        qkv = ("qkv_proj",) if "qkv_proj" in inner else ("q_proj", "k_proj", "v_proj")
        if not {*qkv, "o_proj"} <= set(inner):
            raise UnusualError("its attention has other projections")
        return cls(
            attention_norm=found["input_layernorm"],
            qkv=tuple(inner[name] for name in qkv),
            q_norm=inner.get("q_norm"),
            k_norm=inner.get("k_norm"),
            out=inner["o_proj"],
            mlp_norm=found["post_attention_layernorm"],
            mlp=found["mlp"],
        )

    def modules(self) -> Iterator[nn.Module]:
        yield from (self.attention_norm, *self.qkv, self.out, self.mlp_norm, self.mlp)
        yield from (norm for norm in (self.q_norm, self.k_norm) if norm is not None)


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out before: norms and gated MLPs by module, shapes by layer."""

    kernels: Kernels
    norms: Mapping[nn.Module, Norm]
    mlps: Mapping[nn.Module, GatedMLP]
    shapes: Mapping[int, LayerShape]

    def norm(self, module: nn.Module) -> Norm:
        if module not in self.norms:
            raise UnusualError(f"its {type(module).__name__} is another norm")
        return self.norms[module]


def match(layers: nn.ModuleList, parts: list[Parts], known: Known, seen: Observed) -> DecoderStack:
    """The layers as one module, over their own parts. Raises UnusualError."""
    if unknown := sorted(seen.operations - GLUE):
        raise UnusualError(f"its layers call {unknown[0]}")
    calls = [_call(seen, layer) for layer in layers]
    for before, after in pairwise(calls):
        _require(
            after.args[0] is before.output
            and after.kwargs["position_embeddings"] is before.kwargs["position_embeddings"],
            "its layers are not called one after the other, with the same positions",
        )
    found = [
        _layer(index, part, call, known, seen)
        for index, (part, call) in enumerate(zip(parts, calls, strict=True))
    ]
    others = [part.mlp for part in parts if part.mlp not in known.mlps]
    return DecoderStack(found, known.kernels, others)


def _layer(index: int, parts: Parts, outer: Call, known: Known, seen: Observed) -> DecoderLayer:
    _require(index in seen.attention, "its layers are numbered otherwise")
    shape, attention = known.shapes[index], seen.attention[index]
    _require(shape.key_dim == shape.value_dim, "its values are not as wide as its keys")
    layer = DecoderLayer(
        index=index,
        heads=attention.query.shape[1],
        kv_heads=shape.kv_heads,
        dim=shape.key_dim,
        attention_norm=known.norm(parts.attention_norm),
        qkv=Joined(parts.qkv),
        q_norm=known.norm(parts.q_norm) if parts.q_norm is not None else None,
        k_norm=known.norm(parts.k_norm) if parts.k_norm is not None else None,
        is_rotary=True,
        options=attention.options,
        out=Joined([parts.out]),
        mlp_norm=known.norm(parts.mlp_norm),
        mlp=known.mlps.get(parts.mlp) or _unbatched(parts.mlp),
    )
    _require(
        all(len(norm.weight) == layer.dim for norm in (layer.q_norm, layer.k_norm) if norm),
        "its queries and keys are normalised over all heads",
    )
    _check_sums(parts, outer, seen, attention.out)
    projected = torch.cat([_call(seen, module).output[0] for module in parts.qkv], dim=-1)
    query, key, value = DecoderStack([layer], known.kernels).heads(layer, projected)
    _require(torch.equal(value, attention.value), "its values are changed before attention")
    cos, sin = _angles(outer)
    wanted = attention.query, attention.key
    if all(map(is_close, (rotate(query, cos, sin), rotate(key, cos, sin)), wanted)):
        return layer
    _require(all(map(is_close, (query, key), wanted)), "its positions are encoded otherwise")
    return replace(layer, is_rotary=False)


def _check_sums(parts: Parts, outer: Call, seen: Observed, attended: Tensor) -> None:
    """What is added and handed on between the parts is what the stack adds and hands on."""
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
    hidden, found = outer.args[0], outer.kwargs["position_embeddings"]
    _require(
        isinstance(found, tuple)
        and len(found) == 2
        and all(isinstance(part, Tensor) and part.dtype == hidden.dtype for part in found)
        and found[0].shape == found[1].shape == (1, hidden.shape[1], found[0].shape[-1]),
        "its positions come in another form",
    )
    return found[0][0], found[1][0]


def _call(seen: Observed, module: nn.Module) -> Call:
    """The one call of a module that takes one tensor and gives one."""
    call = seen.call(module)
    if call is None or len(call.args) != 1 or not isinstance(call.output, Tensor):
        raise UnusualError(f"its {type(module).__name__} is called otherwise")
    return call


def _require(is_so: Any, otherwise: str) -> None:
    if not is_so:
        raise UnusualError(otherwise)


def _unbatched(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module for [T, n] instead of [1, T, n]."""
    return lambda hidden: module(hidden.unsqueeze(0))[0]
