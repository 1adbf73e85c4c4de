"""What those are told whose step raised."""

from __future__ import annotations

import re

from millstream.core.request import FailureCode

# Of torch's allocators, of drivers and libraries below them, and of C++: they have no class.
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


def step_failure(error: BaseException) -> tuple[FailureCode, str]:
    """The code and the message for the requests of a step that raised `error`."""
    if is_out_of_memory(error):
        return FailureCode.OUT_OF_MEMORY, "there was not enough memory to compute the answer"
    return FailureCode.STEP_FAILED, f"generation failed: {type(error).__name__}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a device.

    On a CPU torch raises a RuntimeError like any other, on CUDA its own `OutOfMemoryError`, or one
    whose text is that of the driver. This room does without torch, so it goes by names and texts.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
