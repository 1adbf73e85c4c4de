"""AWQ, as AutoAWQ's "gemm" version and llm-awq's successors write it.

    qweight  int32 [inputs, outputs / 8]   eight channels in a word
    qzeros   int32 [groups, outputs / 8]   the numbers that stand for 0
    scales   float [groups, outputs]

Four bits; the weight is scale * (number - zero). From its lowest bits on, a word holds the channels
0, 2, 4, 6, 1, 3, 5, 7. Source: `awq/utils/packing_utils.py` of AutoAWQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from millstream.errors import StartupError
from millstream.model.stored.formats import (
    LayerSize,
    UnknownLayoutError,
    groups_of,
    require_shape,
)
from millstream.model.stored.weight import StoredWeight, signed, unpacked

_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of the channels of a word


class Awq:
    """AWQ in four bits."""

    name = "awq"
    parts = frozenset({"qweight", "qzeros", "scales"})

    def __init__(self, config: Mapping[str, Any]) -> None:
        """config: the checkpoint's quantization_config. Raises StartupError, which names what is
        not known."""
        layout = config.get("version") or config.get("checkpoint_format") or "gemm"
        if str(layout).lower() != "gemm":
            raise StartupError(f"AWQ in the layout {layout!r} is not known here; gemm is")
        if (bits := config.get("bits", config.get("w_bit", 4))) != 4:
            raise StartupError(f"AWQ with {bits} bits is not known here; 4 are")
        if config.get("zero_point") is False:
            raise StartupError("AWQ without zero points (zero_point: false) is not known here")

    def is_stored(self, names: frozenset[str]) -> bool:
        """Whether a layer has packed numbers."""
        return "qweight" in names

    def decode(self, parts: Mapping[str, Tensor], size: LayerSize) -> StoredWeight:
        """The weight of a layer. Raises UnknownLayoutError."""
        outputs, inputs = size
        if missing := sorted(self.parts - parts.keys()):
            raise UnknownLayoutError(f"it has no {missing[0]}")
        scales = parts["scales"]
        groups = groups_of("scales", len(scales), inputs)
        require_shape("qweight", parts["qweight"], inputs, outputs // 8)
        require_shape("qzeros", parts["qzeros"], groups, outputs // 8)
        require_shape("scales", scales, groups, outputs)
        codes, zeros = (
            unpacked(parts[name], 4).view(rows, -1, 8)[..., _PLACES].flatten(1).t()
            for name, rows in (("qweight", inputs), ("qzeros", groups))
        )
        steps = scales.t().float().contiguous()
        return StoredWeight(signed(codes.contiguous(), 4), steps, steps * (8 - zeros.short()), 4)
