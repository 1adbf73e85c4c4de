"""How modules that keep a state go on with a text that they have begun, found by trying it.

A module is given the inputs of a text again, in parts: what it gives must be what it gave for the
whole text. In one part after another it may take a text only at its start, which `Carrier` says;
but one token after another must do, because that is how answers are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from millstream.errors import StartupError
from millstream.model.states.model_cache import ModelCache, StatelessCache
from millstream.model.states.splitting import Carrier, Splitting, TokenDims
from millstream.model.states.state_cache import StateCache
from millstream.model.states.state_step import NO_STATE, StateStep, Stretch
from millstream.model.tolerance import CONTINUED_STATES, ROUNDED_STATES, logits_difference

TEXT_LENGTHS = (5, 8)
"""Tokens of the two texts that a model is watched with."""


@dataclass
class ObservedCall:
    """What a module was given, by position and by name, and the tensors that it gave."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[Tensor | None]

    @property
    def inputs(self) -> dict[int | str, Tensor]:
        """The tensors among what it was given."""
        given: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        return {name: value for name, value in given if isinstance(value, Tensor)}

    def repeated(self, forward: Callable[..., Any], cache: StatelessCache) -> list[Tensor | None]:
        """What `forward` gives for the same, but with this cache."""

        def ours(value: Any) -> Any:
            return cache if isinstance(value, StatelessCache) else value

        kwargs = {name: ours(value) for name, value in self.kwargs.items()}
        return tensors_of(forward(*map(ours, self.args), **kwargs))


def goes_on(module: nn.Module, dims: TokenDims, call: ObservedCall, states: StateCache) -> bool:
    """Whether the module computes the same when it takes the text in two parts, of several tokens
    each. Some take more than one token at the start of a sequence only.

    Raises StartupError if it computes something else when it takes one token after the other.
    """
    dtype = next(out.dtype for out in call.outputs if out is not None)
    limit = CONTINUED_STATES[dtype]
    difference = _difference_of(module, dims, call, states, by_tokens=True)
    if not difference <= limit:
        raise StartupError(
            f"{type(module).__name__} computes a single token otherwise than several at once "
            f"(results differ by {difference:.3%} of their spread, {limit:.3%} is allowed), so "
            "answers would depend on how texts are cut"
        )
    together = _difference_of(module, dims, call, states, by_tokens=False)
    return together <= max(ROUNDED_STATES[dtype], 4 * difference)


def tensors_of(output: Any) -> list[Tensor | None]:
    """The tensors of a module's result."""
    results = output if isinstance(output, tuple | list) else (output,)
    return [value if isinstance(value, Tensor) else None for value in results]


def _difference_of(
    module: nn.Module, dims: TokenDims, call: ObservedCall, states: StateCache, *, by_tokens: bool
) -> float:
    """How far what the module gives in parts is from what it gave in one go, at most.

    by_tokens: all parts but the first are one token each; otherwise there are two parts.
    """
    cache = ModelCache()
    first, rest = TEXT_LENGTHS[0], TEXT_LENGTHS[1] - TEXT_LENGTHS[0]
    stretches = (Stretch(0, first, NO_STATE, 0), Stretch(first, rest, 0, 0))
    cache.step = StateStep(states, 0, stretches, torch.empty(2, 0), torch.empty(0))
    splitting = Splitting({module: Carrier(dims, goes_on_by_tokens=by_tokens)})
    with splitting.installed():
        parts = call.repeated(module, cache)
    pairs = zip(parts, call.outputs, strict=True)
    return max(
        logits_difference(a.float(), b.float()) for a, b in pairs if a is not None and b is not None
    )


def token_dims(module: nn.Module, short: ObservedCall, long: ObservedCall) -> TokenDims:
    """Along which dimensions tokens lie. Raises StartupError if that cannot be told."""
    names = [name for name in short.inputs if name in long.inputs]
    inputs = {name: _dim(module, short.inputs[name], long.inputs[name]) for name in names}
    outputs = [
        None if one is None or other is None else _dim(module, one, other)
        for one, other in zip(short.outputs, long.outputs, strict=True)
    ]
    return TokenDims(
        {name: dim for name, dim in inputs.items() if dim is not None},
        outputs,
    )


def _dim(module: nn.Module, short: Tensor, long: Tensor) -> int | None:
    """The one dimension in which two tensors differ; None if they have one shape."""
    differing = [
        dim
        for dim, (one, other) in enumerate(zip(short.shape, long.shape, strict=True))
        if one != other
    ]
    if not differing:
        return None
    is_batch = short.shape[0] == 1 and long.shape[0] == 1
    if len(differing) > 1 or not is_batch or short.shape[differing[0]] != TEXT_LENGTHS[0]:
        raise StartupError(
            f"{type(module).__name__}, which keeps a state, is given or gives tensors whose "
            "rows cannot be told apart"
        )
    return differing[0]
