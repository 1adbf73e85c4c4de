"""GPTQ, as AutoGPTQ, GPTQModel and optimum write it.

    qweight  int32 [inputs / n, outputs]   n = 32 / bits inputs of a channel in a word
    qzeros   int32 [groups, outputs / n]   the number that stands for 0, of n channels in a word
    scales   float [groups, outputs]
    g_idx    int32 [inputs]                the group of each input

Numbers count from 0; the weight is scale * (number - zero). The first version of the format keeps
zeros less one, the second (`gptq_v2`) as they are. Layers may differ in bits and group sizes; both
follow from the shapes. Source: the module `qlinear/torch.py` of GPTQModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from millstream.errors import StartupError
from millstream.model.stored.formats import (
    LayerSize,
    UnknownLayoutError,
    groups_of,
    require_shape,
)
from millstream.model.stored.weight import StoredWeight, signed, unpacked

_ZERO_LESS = {"gptq": 1, "gptq_v2": 0}


class Gptq:
    """GPTQ in one of its versions."""

    name = "gptq"
    parts = frozenset({"qweight", "qzeros", "scales", "g_idx"})

    def __init__(self, config: Mapping[str, Any]) -> None:
        """config: the checkpoint's quantization_config. Raises StartupError, which names what is
        not known."""
        layout = config.get("checkpoint_format") or config.get("format") or "gptq"
        if layout not in _ZERO_LESS or config.get("is_marlin_format"):
            layout = "marlin" if config.get("is_marlin_format") else layout
            raise StartupError(f"GPTQ in the layout {layout!r} is not known here")
        if (bits := config.get("bits", 4)) not in (4, 8):
            raise StartupError(f"GPTQ with {bits} bits is not known here; 4 and 8 are")
        if (words := config.get("pack_dtype", "int32")) not in ("int32", None):
            raise StartupError(f"GPTQ packed into {words} is not known here; int32 is")
        self._zero_less = _ZERO_LESS[layout]

    def is_stored(self, names: frozenset[str]) -> bool:
        """Whether a layer has packed numbers."""
        return "qweight" in names

    def decode(self, parts: Mapping[str, Tensor], size: LayerSize) -> StoredWeight:
        """The weight of a layer; act-order is kept in `group_of`. Raises UnknownLayoutError."""
        outputs, inputs = size
        if missing := sorted(self.parts - parts.keys() - {"g_idx"}):
            raise UnknownLayoutError(f"it has no {missing[0]}")
        qweight, scales = parts["qweight"], parts["scales"]
        bits = _bits(qweight, size)
        groups = groups_of("scales", len(scales), inputs)
        require_shape("scales", scales, groups, outputs)
        require_shape("qzeros", parts["qzeros"], groups, outputs * bits // 32)
        codes = unpacked(qweight.t(), bits)
        zeros = (unpacked(parts["qzeros"], bits).t().short() + self._zero_less) % 2**bits
        steps = scales.t().float().contiguous()
        middle = 1 << (bits - 1)
        offsets = steps * (middle - zeros)
        return StoredWeight(
            signed(codes, bits),
            steps,
            offsets if (zeros != middle).any() else None,
            bits,
            _group_of(parts.get("g_idx"), inputs, groups),
        )


def _bits(qweight: Tensor, size: LayerSize) -> Literal[4, 8]:
    for bits in (4, 8):
        if qweight.shape == (size.inputs * bits // 32, size.outputs):
            return 4 if bits == 4 else 8
    raise UnknownLayoutError(
        f"its qweight is {[*qweight.shape]}, which is neither 4 nor 8 bits of {[*size]}"
    )


def _group_of(g_idx: Tensor | None, inputs: int, groups: int) -> Tensor | None:
    """The group of each input, or None if they simply follow each other."""
    if g_idx is None:
        return None
    require_shape("g_idx", g_idx, inputs)
    in_order = torch.arange(inputs) // (inputs // groups)
    if torch.equal(g_idx.long(), in_order):
        return None
    if not 0 <= int(g_idx.min()) <= int(g_idx.max()) < groups:
        raise UnknownLayoutError(f"its g_idx names groups beyond its {groups}")
    return g_idx.long()
