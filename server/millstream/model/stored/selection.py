"""Which format a checkpoint is stored in, from its quantization_config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.model.stored.awq import Awq
from millstream.model.stored.compressed_tensors import LAYOUTS, CompressedTensors, layouts_of
from millstream.model.stored.formats import StoredFormat
from millstream.model.stored.gptq import Gptq


def stored_format(config: Mapping[str, Any]) -> StoredFormat | None:
    """The format of a quantization_config, or None if it is none of this room.

    Raises StartupError for a variant that is not known, with its name.
    """
    method = config.get("quant_method")
    if method == "gptq":
        return Gptq(config)
    if method == "awq":
        return Awq(config)
    if method == "compressed-tensors" and layouts_of(config) <= LAYOUTS:
        return CompressedTensors(config)
    return None
