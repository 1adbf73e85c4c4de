"""Whose own code is running: what watchers of calls rely on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from millstream.model.running_modules import RunningModules


class Noting(nn.Module):
    """Notes who is running before, during and after the call of a module inside; may fail."""

    def __init__(self, running: RunningModules, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.running, self.inner = running, inner
        self.notes: list[nn.Module | None] = []
        self.fails = False

    def forward(self, hidden: Tensor) -> Tensor:
        self.notes.append(self.running.innermost)
        if self.fails:
            raise ValueError("as asked")
        if self.inner is not None:
            hidden = self.inner(hidden)
            self.notes.append(self.running.innermost)
        with self.running.paused():
            self.notes.append(self.running.innermost)
        return hidden


def test_the_innermost_tracked_module_is_running() -> None:
    running = RunningModules()
    inner = Noting(running)
    untracked = Noting(running, inner)
    outer = Noting(running, untracked)
    with running.tracking([outer, inner, outer]):
        outer(torch.zeros(1))
        assert running.innermost is None
    assert outer.notes == [outer, outer, None]
    assert untracked.notes == [outer, outer, None]
    assert inner.notes == [inner, None]


def test_a_module_that_fails_is_left_and_nothing_is_tracked_afterwards() -> None:
    running = RunningModules()
    inner = Noting(running)
    outer = Noting(running, inner)
    inner.fails = True
    with pytest.raises(ValueError, match="as asked"), running.tracking([outer, inner]):
        outer(torch.zeros(1))
    assert running.innermost is None
    inner.fails = False
    inner(torch.zeros(1))
    assert inner.notes[-2:] == [None, None]
