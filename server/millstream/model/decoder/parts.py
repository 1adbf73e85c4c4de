"""Norms, gated MLPs and projections of a model, recognised by what they compute.

Many models compute the same few formulas by code of their own. A part is taken for a formula by
two signs together. It gives the same as the formula on random numbers, up to rounding; that alone
would not be enough, since a limit that the numbers do not reach computes nothing. And its code
calls no operators but those of the formula (see called_operators.py), so there is no room for such
a limit.

Rule: a part that is not recognised is left as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from millstream.model.checks.model_failures import MODEL_FAILURES
from millstream.model.cpu.linears import (
    NativeGroupedLinear,
    NativeInt8Linear,
    NativeLinear,
    NativeQuantizedLinear,
    PackedLinear,
    is_plain,
    merge,
)
from millstream.model.decoder.called_operators import GATED, NORM, recording
from millstream.model.layer_operations import LayerOperations, Norm
from millstream.model.tolerance import OPERATORS, is_close

_ROWS = 4
_PACKED = (PackedLinear, NativeLinear, NativeInt8Linear, NativeGroupedLinear)

Pack = Callable[[nn.Linear], nn.Module]


class Joined:
    """The outputs of several linear layers over one input, side by side.

    Mutated by its own `merge()` only.
    """

    def __init__(self, linears: Sequence[nn.Module]) -> None:
        self._calls: list[Callable[[Tensor], Tensor]] = [caller(linear) for linear in linears]
        self.linears = linears

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [T, n] -> [T, sum of outputs]."""
        if len(self._calls) == 1:
            return self._calls[0](hidden)
        return torch.cat([call(hidden) for call in self._calls], dim=-1)

    def merge(self, pack: Pack) -> None:
        """Packs the layers, as one unless they are of different kinds (some quantised, say)."""
        plain = [linear for linear in self.linears if is_plain(linear)]
        quantized = [one for one in self.linears if isinstance(one, NativeQuantizedLinear)]
        if 1 < len(plain) == len(self.linears):
            self.linears = [merge(plain)]
        elif 1 < len(quantized) == len(self.linears) and quantized[0].can_merge(quantized):
            self.linears = [quantized[0].merged(quantized)]
        self.linears = [pack(linear) if is_plain(linear) else linear for linear in self.linears]
        self._calls = [caller(linear) for linear in self.linears]


class GatedMLP:
    """down(activation(gate(x)) * up(x)), the two inner products at once."""

    def __init__(
        self, inner: Sequence[nn.Module], down: nn.Module, gated: Callable[[Tensor], Tensor]
    ) -> None:
        self.inner, self.down, self.gated = Joined(inner), Joined([down]), gated

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [T, n] -> [T, n]."""
        return self.down(self.gated(self.inner(hidden)))

    def merge(self, pack: Pack) -> None:
        """Packs the inner layers, as one where they can be, and the last one."""
        self.inner.merge(pack)
        self.down.merge(pack)


def caller(linear: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function that calls a linear layer: its forward itself, without nn.Module's detour, if
    the layer is one of the known classes."""
    return linear.forward if is_plain(linear) or type(linear) in _PACKED else linear


def find_norm(module: nn.Module, operations: LayerOperations) -> Norm | None:
    """The RMS norm over its last dimension that the module is, or None."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not (isinstance(weight, nn.Parameter) and weight.dim() == 1 and isinstance(eps, float)):
        return None
    if weight.dtype not in OPERATORS or len(list(module.parameters())) > 1:
        return None
    # Rows of very different sizes, so that eps counts in some of them.
    scales = torch.tensor([[0.1 * eps**0.5], [eps**0.5], [1.0], [50.0]])
    sample = (_random(_ROWS, len(weight)) * scales).to(weight.device, weight.dtype)
    actual = _results(module, sample, [], NORM)
    for unit_offset in (False, True):
        if actual is not None and is_close(
            operations.rms_norm(sample, weight, eps, unit_offset=unit_offset), actual
        ):
            return Norm(weight.detach(), eps, unit_offset)
    return None


def find_gated_mlp(module: nn.Module, operations: LayerOperations, like: Tensor) -> GatedMLP | None:
    """The gated MLP that the module is, over the module's own linear layers, or None.

    like: of the device and the dtype that the model computes in.
    """
    names = ("gate_proj", "up_proj") if hasattr(module, "gate_proj") else ("gate_up_proj",)
    linears = [getattr(module, name, None) for name in (*names, "down_proj")]
    modules = [linear for linear in linears if isinstance(linear, nn.Module)]
    width = getattr(modules[0], "in_features", None) if modules else None
    if len(modules) < len(linears) or not isinstance(width, int) or like.dtype not in OPERATORS:
        return None
    sample = _random(_ROWS, width).to(like)
    actual = _results(module, sample, modules, GATED)
    for gated in (operations.silu_mul, operations.gelu_tanh_mul):
        mlp = GatedMLP(modules[:-1], modules[-1], gated)
        if actual is not None and is_close(mlp(sample), actual):
            return mlp
    return None


def _results(
    module: nn.Module, sample: Tensor, kept: Sequence[nn.Module], allowed: frozenset[str]
) -> Tensor | None:
    """The module's result [T, n] for the sample [T, n], or None.

    None: the module takes other arguments, gives another shape, fails, or calls operators beside
    `allowed` outside of the modules `kept`.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    if len(parameters) != 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    try:
        with recording([module], kept) as operations:
            result = module(sample.unsqueeze(0))
    except MODEL_FAILURES:
        return None
    is_fit = operations.names <= allowed and isinstance(result, Tensor)
    return result[0] if is_fit and result.dim() == 3 else None


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
