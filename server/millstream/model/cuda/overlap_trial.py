"""Whether kernels of this device may be launched while the one before them still runs.

Whatever goes wrong costs one line in the log, never the server.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from functools import cache

import torch

log = logging.getLogger(__name__)

_KERNELS = "millstream.model.cuda.dependent_launch"


@cache
def can_overlap(
    device: torch.device, *, require: Callable[[torch.device], None] | None = None
) -> bool:
    """Whether they may, with the reason in the log if not; a device is tried once.

    require: raises where they may not.
    """
    try:
        (require or _require)(device)
    except Exception as error:  # last resort: compilers and drivers raise what they like
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.info("kernels are launched one after the other: %s", reason)
        return False
    log.info("kernels are launched while the one before them ends")
    return True


def _require(device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise NotImplementedError("triton is not installed")
    # Imported here only: it takes a second, and machines without CUDA need not have it.
    importlib.import_module(_KERNELS).require_overlap(device)
