"""Which torch operators a piece of model code calls itself, beside the modules that it calls.

Numbers alone prove little: a clamp that is never reached computes nothing on a sample. But code
that only calls operators without cases or thresholds, and gives what a formula of the same few
operators gives on random numbers, is that formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from millstream.model.running_modules import RunningModules

_VIEWS = [
    "view",
    "_unsafe_view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "flatten",
    "transpose",
    "permute",
    "slice",
    "select",
    "split",
    "split_with_sizes",
    "chunk",
    "expand",
    "alias",
    "detach",
    "clone",
    "contiguous",
    "cat",
    "to",
    "type_as",
    "_to_copy",
    "dropout",
]
VIEWS = frozenset(f"aten::{name}" for name in _VIEWS)
"""Operators that compute nothing: they arrange, copy or convert (dropout does nothing here)."""
NORM = VIEWS | {"aten::pow", "aten::square", "aten::mean", "aten::rsqrt", "aten::mul", "aten::add"}
"""Operators of an RMS norm."""
GATED = VIEWS | {"aten::silu", "aten::gelu tanh", "aten::mul"}
"""Operators of a gated MLP, beside its linear layers."""
GLUE = VIEWS | {"aten::mul", "aten::add", "aten::neg"}
"""Operators of a decoder layer between its norms, linear layers, attention and MLP: the sums, and
the rotation of queries and keys."""


class OperatorRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that modules call themselves.

    names: as torch's schemas spell them ("aten::mul"), gelu with its formula ("aten::gelu tanh").
    Mutated by the mode itself.
    """

    def __init__(self, watched: Iterable[nn.Module] = ()) -> None:
        """watched: the modules whose calls are noted while they are tracked in `running`."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()
        self.running = RunningModules()
        self._watched = frozenset(watched)

    def paused(self) -> AbstractContextManager[None]:
        """Inside, nothing is noted."""
        return self.running.paused()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self.running.innermost in self._watched:
            name: str = func._schema.name  # type: ignore[attr-defined]
            # Two formulas, which bfloat16 hardly tells apart.
            form = f" {(kwargs or {}).get('approximate', 'none')}" if name == "aten::gelu" else ""
            self.names.add(name + form)
        return func(*args, **(kwargs or {}))


@contextmanager
def recording(
    watched: Iterable[nn.Module], kept: Iterable[nn.Module]
) -> Iterator[OperatorRecorder]:
    """Inside, the operators that `watched` modules call outside of `kept` ones are noted."""
    watched, kept = frozenset(watched), frozenset(kept)
    operations = OperatorRecorder(watched - kept)
    with operations.running.tracking(watched | kept), operations:
        yield operations
