"""Layers with states are given the rows of a step in parts, each with its sequences' states.

A model computes a step as one batch [1, T, hidden] of all its tokens, which is right for everything
that looks at one token at a time. The modules that carry a state from token to token would take
them for one sequence. So their forward is called several times: once for all rows that are a
sequence each, as a batch [n, 1, hidden], and once for each stretch of a prompt.

Rule: modules are changed only while a model is called, so others may use it in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from millstream.model.states.model_cache import ModelCache
from millstream.model.states.state_step import NO_STATE, Stretch

Call = Callable[..., Any]


@dataclass(frozen=True)
class TokenDims:
    """Along which dimension the tokens lie in what a module is given and what it gives.

    inputs: by position or name of the argument; outputs: for each tensor of the result, None where
    it does not depend on the tokens. In all of them the batch is the first dimension.
    """

    inputs: Mapping[int | str, int]
    outputs: Sequence[int | None]


@dataclass(frozen=True)
class Carrier:
    """How a module that carries a state from token to token is called in parts.

    goes_on_by_tokens: its code takes several tokens at once at the start of a sequence only.
    """

    dims: TokenDims
    goes_on_by_tokens: bool = False


class Splitting:
    """The forwards of a model's modules with states while the model is called.

    forwards: by module; who knows a faster way may replace one. It is called with the module's own
    arguments, among them a ModelCache whose step is being computed.
    """

    def __init__(self, carriers: Mapping[nn.Module, Carrier]) -> None:
        self.forwards: dict[nn.Module, Call] = {
            module: partial(_in_parts, module.forward, carrier)
            for module, carrier in carriers.items()
        }

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, the modules compute in parts."""
        before = {module: module.__dict__.get("forward") for module in self.forwards}
        for module, forward in self.forwards.items():
            module.__dict__["forward"] = forward
        try:
            yield
        finally:
            for module, own in before.items():
                if own is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = own


def find_cache(args: Sequence[Any], kwargs: Mapping[str, Any]) -> ModelCache | None:
    """The ModelCache among the arguments of a call, whatever its name is."""
    for value in (*kwargs.values(), *args):
        if isinstance(value, ModelCache):
            return value
    return None


def _in_parts(forward: Call, carrier: Carrier, *args: Any, **kwargs: Any) -> Any:
    """What a module gives for the rows of a step; forward: its own."""
    cache, dims = find_cache(args, kwargs), carrier.dims
    if cache is None or cache.step is None:
        return forward(*args, **kwargs)
    step = cache.step
    results: list[Any] = []
    if step.num_decodes:
        with cache.within(None):
            cut = partial(_cut_decodes, count=step.num_decodes)
            results.append(_call(forward, dims, cut, args, kwargs))
        results[0] = _with_outputs(results[0], dims, lambda value, dim: value.transpose(0, dim))
    for stretch in step.stretches:
        by_tokens = carrier.goes_on_by_tokens and stretch.source != NO_STATE
        with cache.within(stretch):
            for first, length in _parts_of(stretch, by_tokens=by_tokens):
                cut = partial(_cut_rows, first=first, length=length)
                results.append(_call(forward, dims, cut, args, kwargs))
    return results[0] if len(results) == 1 else _joined(results, dims)


def _parts_of(stretch: Stretch, *, by_tokens: bool) -> list[tuple[int, int]]:
    """First row and number of rows of each call for a stretch."""
    if not by_tokens:
        return [(stretch.first, stretch.length)]
    return [(stretch.first + row, 1) for row in range(stretch.length)]


def _cut_decodes(value: Tensor, dim: int, count: int) -> Tensor:
    """The decode rows of a tensor as a batch of sequences of one token."""
    return value.narrow(dim, 0, count).transpose(0, dim)


def _cut_rows(value: Tensor, dim: int, first: int, length: int) -> Tensor:
    return value.narrow(dim, first, length)


def _call(
    forward: Call,
    dims: TokenDims,
    cut: Callable[[Tensor, int], Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """What the module gives for the rows that `cut` takes of each tensor that has them."""

    def part(name: int | str, value: Any) -> Any:
        dim = dims.inputs.get(name)
        return cut(value, dim) if dim is not None and isinstance(value, Tensor) else value

    positional = [part(index, value) for index, value in enumerate(args)]
    named = {name: part(name, value) for name, value in kwargs.items()}
    return forward(*positional, **named)


def _with_outputs(result: Any, dims: TokenDims, change: Callable[[Tensor, int], Tensor]) -> Any:
    """The result of a module with its tensors changed, given the dimension of their tokens."""
    if isinstance(result, Tensor):
        dim = dims.outputs[0]
        return result if dim is None else change(result, dim)
    pairs = zip(result, dims.outputs, strict=True)
    return type(result)(v if dim is None else change(v, dim) for v, dim in pairs)


def _joined(results: Sequence[Any], dims: TokenDims) -> Any:
    """The results of all parts as one, one after the other."""
    if isinstance(results[0], Tensor):
        dim = dims.outputs[0]
        return results[0] if dim is None else torch.cat(list(results), dim=dim)
    columns = zip(zip(*results, strict=True), dims.outputs, strict=True)
    return type(results[0])(
        column[0] if dim is None else torch.cat(list(column), dim=dim) for column, dim in columns
    )
