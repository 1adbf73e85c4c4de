"""Kernels compiled for this machine, or None.

Rule: whatever goes wrong (no compiler, a failing build, a folder that cannot be written, a kernel
whose result differs from plain torch) costs one line in the log, never the server.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from millstream.model.cache_folder import cache_folder
from millstream.model.cpu.kernels.compilation import BuildError, build
from millstream.model.cpu.kernels.function_table import Kernels, plain
from millstream.model.cpu.kernels.kernel_check import differences

log = logging.getLogger(__name__)


def load(folder: Path | None = None) -> Kernels | None:
    """The kernels, compiled if need be, loaded and compared with plain torch; None if that fails.

    The first call on a machine takes 20 to 60 seconds. folder: for the compiled library, by default
    in the user's cache.
    """
    try:
        if not is_loaded():
            library = str(build(folder or cache_folder("native")))
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        kernels = Kernels.of(torch.ops.millstream, classes=torch.classes.millstream)
        wrong = differences(kernels, plain())
    except (BuildError, OSError, RuntimeError, AttributeError) as error:
        log.warning("no CPU kernels, plain torch is used: %s", error)
        return None
    if wrong:
        log.warning("the CPU kernels are wrong, plain torch is used: %s", ", ".join(wrong))
        return None
    return kernels


def is_loaded() -> bool:
    """Whether this process has loaded the kernels before."""
    # A second library with the same operators would end the process.
    return hasattr(torch.ops.millstream, "paged_attention_decode")
