"""What the bits of a block depend on, as one digest.

Blocks are found again only where the same weights, the same code and the same hardware would
compute the same bits: the checkpoint, the precision and quantisation, the code of `model/` and of
the libraries, the compiled kernels, what the processor can do and how many threads share the work,
the size of a step, and how a block is laid out. Whatever of this changes, nothing is found, and
what was there before is dropped in time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import transformers

from millstream.core.status import EngineInfo
from millstream.model.block_files.block_file import KEY_BYTES
from millstream.model.cpu.kernels import processor
from millstream.model.speedups import Speedups
from millstream.settings import Settings

_CODE = Path(__file__).parents[1]
_CHOICES = ("batch_invariant", "quantize", "max_total_tokens")


def fingerprint(
    checkpoint: str,
    settings: Settings,
    info: EngineInfo,
    *,
    layout: Sequence[Any],
    speedups: Speedups,
) -> bytes:
    """16 bytes. checkpoint: its identity; layout: of a block, as of `BlockCopies`."""
    on_cuda = torch.cuda.is_available()
    parts = {
        "checkpoint": checkpoint,
        "model": [info.architecture, info.dtype, info.quantization, info.attention_backend],
        "block": [info.block_size, layout],
        "choices": [str(getattr(settings, name)) for name in _CHOICES],
        "speedups": str(speedups),
        "step": info.max_step_tokens,
        "code": _code(),
        "libraries": [torch.__version__, transformers.__version__, torch.version.cuda],
        "kernels": sorted(Path(each).name for each in torch.ops.loaded_libraries),
        "device": [info.device, torch.cuda.get_device_capability() if on_cuda else None],
        "processor": [processor(), torch.backends.cpu.get_cpu_capability()],
        "threads": [torch.get_num_threads(), settings.threads],
        "precision": torch.get_float32_matmul_precision(),
    }
    text = json.dumps(parts, sort_keys=True)
    return blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def _code() -> str:
    """A digest of all that computes here."""
    digest = blake2b(digest_size=16)
    for path in sorted(_CODE.rglob("*")):
        if path.suffix in (".py", ".h", ".cpp"):
            digest.update(path.relative_to(_CODE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
