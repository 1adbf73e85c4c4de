"""Which module of a model is running: how a watcher of calls knows whose call it sees.

torch has modes that are told of every function or operator that is called within them, but not by
which module. So hooks around the forward of each module of interest keep a stack: the last module
that was entered and not yet left is the one whose own code makes the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


class RunningModules:
    """The stack of running modules, among those that are tracked.

    Mutated by its own hooks, while a model runs within `tracking()`, and by `paused()`.
    """

    def __init__(self) -> None:
        self._stack: list[nn.Module | None] = [None]

    @property
    def innermost(self) -> nn.Module | None:
        """The module whose own code is running; None outside of every tracked module."""
        return self._stack[-1]

    @contextmanager
    def tracking(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Inside, the stack follows calls of these modules, those that raise included."""
        hooks = []
        try:
            for module in dict.fromkeys(modules):
                hooks.append(module.register_forward_pre_hook(self._enter))
                hooks.append(module.register_forward_hook(self._leave, always_call=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no tracked module counts as running: the code is not the model's."""
        self._stack.append(None)
        try:
            yield
        finally:
            self._stack.pop()

    def _enter(self, module: nn.Module, args: object) -> None:
        self._stack.append(module)

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        self._stack.pop()
