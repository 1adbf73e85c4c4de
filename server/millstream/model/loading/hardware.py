"""On which hardware a model is loaded, and in which precision: `--device`, `--threads`, `--dtype`.

dtype `auto` takes the precision of the weights where the hardware computes it, and float32 for
models so small that nothing is saved by less.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PretrainedConfig

from millstream.errors import StartupError
from millstream.model.loading.cores import available_cores

SMALL_MODEL_BYTES = 32 * 2**20  # of weights as stored


def choose_device(name: str) -> torch.device:
    """The device of `--device`. Raises StartupError if it is not there or not supported."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise StartupError(f"--device: {name} is not a device torch knows") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise StartupError("--device: torch sees no CUDA device; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise StartupError(f"--device: {name} is not supported; use cpu or cuda")
    return device


def choose_threads(files: list[Path]) -> int:
    """All cores, or one for a small model: waiting for each other would cost its threads more."""
    return 1 if _is_small(files) else available_cores()


def choose_dtype(
    name: str, files: list[Path], config: PretrainedConfig, device: torch.device
) -> torch.dtype:
    """The dtype to load with; see the module for `auto`."""
    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        return chosen
    stored = getattr(config.get_text_config(), "dtype", None) or torch.float32
    if isinstance(stored, str):
        stored = getattr(torch, stored)
    if device.type != "cpu" or stored == torch.float32:
        return stored
    # float16 is emulated on nearly every CPU; bfloat16 has its range and is not.
    return torch.bfloat16 if _has_bfloat16() and not _is_small(files) else torch.float32


def _has_bfloat16() -> bool:
    """Whether torch has fast bfloat16 products on this CPU (not public, so asked with care)."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def _is_small(files: list[Path]) -> bool:
    size = sum(file.stat().st_size for file in files if file.is_file())
    return size <= SMALL_MODEL_BYTES
