"""What a model keeps of a sequence beside keys and values, found by watching it.

The model runs on a few tokens with a cache that notes which states its layers give it, and hooks
tell whose code is running then. It runs twice, with texts of different lengths: what is longer with
a longer text lies along the tokens, and a state whose size depends on the length is refused.

Rule: whatever is not understood is refused with a StartupError.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millstream.errors import StartupError
from millstream.model.running_modules import RunningModules
from millstream.model.states.model_cache import ModelCache, StatelessCache
from millstream.model.states.splitting import Carrier, Splitting, TokenDims
from millstream.model.states.state_cache import StateCache, StateKey, StateShape
from millstream.model.states.state_step import NO_STATE, StateStep, Stretch
from millstream.model.tolerance import CONTINUED_STATES, logits_difference

_LENGTHS = (5, 8)
_CACHE_NAMES = ("past_key_values", "cache_params")


@dataclass(frozen=True)
class ObservedStates:
    """What layers keep of a sequence. shapes: by key; carriers: the modules whose code carries it
    from token to token. cache_name: the argument by which the model takes its cache."""

    shapes: Mapping[StateKey, StateShape]
    carriers: Mapping[nn.Module, Carrier]
    cache_name: str

    @property
    def layers(self) -> set[int]:
        """Indices of the layers that have a state."""
        return {key.layer for key in self.shapes}


@torch.inference_mode()
def observe_states(model: PreTrainedModel, device: torch.device) -> ObservedStates | None:
    """What the model keeps beside keys and values; None if that is nothing.

    Raises StartupError if it cannot be kept for each sequence apart, and what the model raises.
    """
    names = inspect.signature(model.forward).parameters
    cache_name = next((name for name in _CACHE_NAMES if name in names), None)
    if cache_name is None:
        return None
    short = _watch(model, _LENGTHS[0], cache_name, device)
    if not short.shapes:
        return None
    long = _watch(model, _LENGTHS[1], cache_name, device)
    if short.shapes != long.shapes:
        raise StartupError("the size of a layer's state depends on how many tokens it has seen")
    states = StateCache(short.shapes, num_slots=1, device=device)
    carriers = {}
    for module in short.calls:
        dims = _token_dims(module, short.calls[module], long.calls[module])
        goes_on = _goes_on(module, dims, long.calls[module], states)
        carriers[module] = Carrier(dims, goes_on_by_tokens=not goes_on)
    return ObservedStates(short.shapes, carriers, cache_name)


class _WatchingCache(StatelessCache):
    """Notes the states that layers give it, and which module's code does."""

    def __init__(self, running: RunningModules) -> None:
        super().__init__()
        self._running = running
        self.shapes: dict[StateKey, StateShape] = {}
        self.modules: dict[nn.Module, None] = {}

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Nobody has a state before the text."""
        self._note_module()
        return None

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """Nobody has a state before the text."""
        self._note_module()
        return None

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Notes how many inputs a convolution keeps."""
        self._note_module()
        kept = conv_kernel_size or conv_states.shape[-1]
        sizes = (*conv_states.shape[1:-1], kept)
        self.shapes[StateKey(layer_idx, "conv", state_idx)] = StateShape(sizes, conv_states.dtype)
        return super().update_conv_state(conv_states, layer_idx, state_idx, kept)

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """Notes what a layer keeps."""
        self._note_module()
        key = StateKey(layer_idx, "recurrent", state_idx)
        self.shapes[key] = StateShape(tuple(recurrent_states.shape[1:]), recurrent_states.dtype)
        return recurrent_states

    def _note_module(self) -> None:
        module = self._running.innermost
        if module is None:
            raise StartupError("it changes its states outside of its modules")
        self.modules[module] = None


@dataclass
class _Call:
    """What a module was given, by position and by name, and the tensors that it gave."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Sequence[Tensor | None]

    @property
    def inputs(self) -> dict[int | str, Tensor]:
        """The tensors among what it was given."""
        given: list[tuple[int | str, Any]] = [*enumerate(self.args), *self.kwargs.items()]
        return {name: value for name, value in given if isinstance(value, Tensor)}


@dataclass
class _Watched:
    shapes: dict[StateKey, StateShape]
    calls: dict[nn.Module, _Call]


def _watch(model: PreTrainedModel, length: int, cache_name: str, device: torch.device) -> _Watched:
    """One run on `length` tokens."""
    running = RunningModules()
    cache = _WatchingCache(running)
    calls: dict[nn.Module, _Call] = {}
    ids = torch.arange(length, device=device).unsqueeze(0)
    with running.tracking(model.modules()), _noting_calls(model, calls):
        model(input_ids=ids, position_ids=ids, use_cache=True, **{cache_name: cache})
    return _Watched(cache.shapes, {module: calls[module] for module in cache.modules})


@contextmanager
def _noting_calls(model: nn.Module, calls: dict[nn.Module, _Call]) -> Iterator[None]:
    """Inside, `calls` gets what each module was last given, and what it gave."""

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[module] = _Call(args, kwargs, _tensors(output))

    with ExitStack() as stack:
        for module in model.modules():
            hook = module.register_forward_hook(note, with_kwargs=True)
            stack.callback(hook.remove)
        yield


def _tensors(output: Any) -> list[Tensor | None]:
    """The tensors of a module's result."""
    results = output if isinstance(output, tuple | list) else (output,)
    return [value if isinstance(value, Tensor) else None for value in results]


def _goes_on(module: nn.Module, dims: TokenDims, call: _Call, states: StateCache) -> bool:
    """Whether the module computes the same when it takes the text in two parts, of several tokens
    each. Some take more than one token at the start of a sequence only."""
    cache = ModelCache()
    first, rest = _LENGTHS[0], _LENGTHS[1] - _LENGTHS[0]
    stretches = (Stretch(0, first, NO_STATE, 0), Stretch(first, rest, 0, 0))
    cache.step = StateStep(states, 0, stretches, torch.empty(2, 0), torch.empty(0))
    splitting = Splitting({module: Carrier(dims)})

    def ours(value: Any) -> Any:
        return cache if isinstance(value, StatelessCache) else value

    kwargs = {name: ours(value) for name, value in call.kwargs.items()}
    with splitting.installed():
        parts = _tensors(module(*map(ours, call.args), **kwargs))
    pairs = [
        (a, b) for a, b in zip(parts, call.outputs, strict=True) if a is not None and b is not None
    ]
    return all(
        logits_difference(a.float(), b.float()) <= CONTINUED_STATES[a.dtype] for a, b in pairs
    )


def _token_dims(module: nn.Module, short: _Call, long: _Call) -> TokenDims:
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
    if len(differing) > 1 or not is_batch or short.shape[differing[0]] != _LENGTHS[0]:
        raise StartupError(
            f"{type(module).__name__}, which keeps a state, is given or gives tensors whose "
            "rows cannot be told apart"
        )
    return differing[0]
