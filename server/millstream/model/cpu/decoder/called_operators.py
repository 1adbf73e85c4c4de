"""Which torch operators a piece of model code calls itself, beside the modules that it calls.

Numbers alone prove little: a clamp that is never reached computes nothing on a sample. But code
that only calls operators without cases or thresholds, and gives what a formula of the same few
operators gives on random numbers, is that formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        *("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten", "transpose"),
        *("permute", "slice", "select", "split", "split_with_sizes", "chunk", "expand", "alias"),
        *("detach", "clone", "contiguous", "cat", "to", "type_as", "_to_copy", "dropout"),
    )
)
NORM = VIEWS | {"aten::pow", "aten::square", "aten::mean", "aten::rsqrt", "aten::mul", "aten::add"}
GATED = VIEWS | {"aten::silu", "aten::gelu tanh", "aten::mul"}
GLUE = VIEWS | {"aten::mul", "aten::add", "aten::neg"}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators called inside the pieces that are watched and outside what is kept.

    names: as of now; mutated by the mode itself.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self._noting = [False]
        self._hooks: list[Any] = []

    def watch(self, module: nn.Module) -> None:
        """Notes what the module's own code calls."""
        self._hook(module, noting=True)

    def keep(self, modules: Iterable[nn.Module]) -> None:
        """Notes nothing of what these modules call."""
        for module in modules:
            self._hook(module, noting=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._noting.append(False)
        try:
            yield
        finally:
            self._noting.pop()

    def remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, module: nn.Module, *, noting: bool) -> None:
        self._hooks += [
            module.register_forward_pre_hook(lambda *_: self._noting.append(noting)),
            module.register_forward_hook(lambda *_: self._leave(), always_call=True),
        ]

    def _leave(self) -> None:
        self._noting.pop()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self._noting[-1]:
            name: str = func._schema.name  # type: ignore[attr-defined]
            # Two formulas, which bfloat16 hardly tells apart.
            form = f" {(kwargs or {}).get('approximate', 'none')}" if name == "aten::gelu" else ""
            self.names.add(name + form)
        return func(*args, **(kwargs or {}))


@contextmanager
def noted(watched: Iterable[nn.Module], kept: Iterable[nn.Module]) -> Iterator[Operations]:
    """Inside, the operators that `watched` modules call outside of `kept` ones are noted."""
    operations = Operations()
    try:
        for module in watched:
            operations.watch(module)
        operations.keep(kept)
        with operations:
            yield operations
    finally:
        operations.remove_hooks()
