"""Which parts of a model run within InvariantOperators: those that call what it replaces.

Everything a model does could run within it, but then torch would ask for each of the many operators
that are left alone, which costs a small model a third of its speed. So one run notes which modules
call a replaced function themselves; only they are changed. Linear layers, which do nothing else,
get their tiles directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from millstream.model.cpu.linears import PackedLinear, is_plain
from millstream.model.invariant.operators import InvariantOperators
from millstream.model.invariant.row_tiles import multiply
from millstream.model.running_modules import RunningModules


def use_separate_experts(model: PreTrainedModel) -> None:
    """Makes a mixture of experts compute each expert by products that can be cut into tiles."""
    if model._can_set_experts_implementation():
        model.set_experts_implementation("eager")


def make_invariant(model: nn.Module, run: Callable[[], object]) -> InvariantOperators:
    """Changes the modules of `model` in place; returns the context that the changed ones run in.

    run: calls the model once, with every part of it. Raises StartupError if a product of the model
    cannot be cut into tiles.
    """
    operators = InvariantOperators()
    kinds = _users(model, operators, run)
    for module in model.modules():
        forward: Callable[..., Any] | None = None
        if isinstance(module, PackedLinear) or is_plain(module):
            forward = _tiled(operators, module)
        elif type(module) in kinds:
            # By type, not one by one: an expert may not have been called in that run.
            forward = operators.within(module.forward)
        if forward is not None:
            setattr(module, "forward", forward)  # noqa: B010  mypy allows no assignment
    return operators


def _users(
    model: nn.Module, operators: InvariantOperators, run: Callable[[], object]
) -> set[type[nn.Module]]:
    """The kinds of modules that call a replaced function themselves."""
    recorder = _FunctionRecorder(operators)
    with recorder.running.tracking(model.modules()), operators, recorder:
        run()
    return recorder.users


class _FunctionRecorder(TorchFunctionMode):
    """Notes the kind of the innermost module whenever a function is called that is replaced."""

    def __init__(self, operators: InvariantOperators) -> None:
        super().__init__()
        self.users: set[type[nn.Module]] = set()
        self.running = RunningModules()
        self._operators = operators

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        module = self.running.innermost
        if module is not None and self._operators.replaces(func):
            self.users.add(type(module))
        return func(*args, **(kwargs or {}))


def _tiled(
    operators: InvariantOperators, linear: nn.Linear | PackedLinear
) -> Callable[[Tensor], Tensor]:
    """The forward of a linear layer, in the tiles of its shape: [..., in] -> [..., out]."""
    product = linear.forward
    sizes: tuple[int, ...] = ()

    def forward(hidden: Tensor) -> Tensor:
        nonlocal sizes
        rows = hidden.reshape(-1, hidden.shape[-1])
        if not sizes:
            sizes = _sizes(operators, linear, rows)
        out = multiply(product, rows, sizes)
        return out.view(*hidden.shape[:-1], out.shape[-1])

    return forward


def _sizes(
    operators: InvariantOperators, linear: nn.Linear | PackedLinear, rows: Tensor
) -> tuple[int, ...]:
    """The row tiles for the layer's product by rows [n, in]."""
    # The rounding of zero, which the trials look at, would be lost in a bias.
    bias = None if linear.bias is None else torch.zeros_like(linear.bias)
    function = PackedLinear.multiply if isinstance(linear, PackedLinear) else F.linear
    weight = linear.packed if isinstance(linear, PackedLinear) else linear.weight
    return operators.sizes(
        lambda tile, trial: function(tile, trial, bias), (function, bias is None), rows, weight, -1
    )
