"""Threads, and compiled kernels where there is a compiler."""

from __future__ import annotations

import pytest
import torch

from millstream.model.cpu.kernels import Kernels, load
from millstream.model.cpu.kernels.compilation import BuildError, find_compiler


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models gain nothing from a second thread and lose much when another process is busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    try:
        find_compiler()
    except BuildError:
        pytest.skip("this machine has no compiler")
    # The user's own cache: compiled once for all runs, not once a run.
    found = load()
    assert found is not None
    return found
