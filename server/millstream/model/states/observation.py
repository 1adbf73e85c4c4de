"""What a model keeps of a sequence beside keys and values, found by watching it.

The model runs on a few tokens with a cache that notes which states its layers give it, and hooks
tell whose code is running then. It runs twice, with texts of different lengths: what is longer with
a longer text lies along the tokens, and a state whose size depends on the length is refused.

Rule: whatever is not understood is refused with a StartupError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millstream.errors import StartupError
from millstream.model.running_modules import RunningModules
from millstream.model.states.continuation import (
    TEXT_LENGTHS,
    ObservedCall,
    goes_on,
    tensors_of,
    token_dims,
)
from millstream.model.states.model_cache import StatelessCache, cache_argument
from millstream.model.states.splitting import Carrier
from millstream.model.states.state_cache import StateCache, StateKey, StateShape


@dataclass(frozen=True)
class ObservedStates:
    """What layers keep of a sequence. shapes: by key; carriers: the modules whose code carries it
    from token to token; calls: how each of them was called once. numbers_by_cache: whether modules
    that attend are not told which layer they are, as those that layers share, and only the cache
    is."""

    shapes: Mapping[StateKey, StateShape]
    carriers: Mapping[nn.Module, Carrier]
    calls: Mapping[nn.Module, ObservedCall]
    numbers_by_cache: bool = False

    @property
    def layers(self) -> set[int]:
        """Indices of the layers that have a state."""
        return {key.layer for key in self.shapes}


@torch.inference_mode()
def observe_states(model: PreTrainedModel, device: torch.device) -> ObservedStates | None:
    """What the model keeps beside keys and values; None if that is nothing, and attention
    modules know which layer they are.

    Raises StartupError if it cannot be kept for each sequence apart, and what the model raises.
    """
    cache_name = cache_argument(model)
    if cache_name is None:
        return None
    try:
        short = _watch(model, TEXT_LENGTHS[0], cache_name, device)
    except (TypeError, ValueError) as error:
        raise StartupError("it takes no cache but one of a class of its own") from error
    except (AttributeError, LookupError) as error:
        raise StartupError("it reaches past the interface of transformers' caches") from error
    if not short.shapes:
        only_numbers = ObservedStates({}, {}, {}, short.numbers_by_cache)
        return only_numbers if short.numbers_by_cache else None
    long = _watch(model, TEXT_LENGTHS[1], cache_name, device)
    if short.shapes != long.shapes:
        raise StartupError("the size of a layer's state depends on how many tokens it has seen")
    states = StateCache(short.shapes, num_slots=1, device=device)
    carriers = {}
    for module in short.calls:
        dims = token_dims(module, short.calls[module], long.calls[module])
        by_tokens = not goes_on(module, dims, long.calls[module], states)
        carriers[module] = Carrier(dims, goes_on_by_tokens=by_tokens)
    return ObservedStates(short.shapes, carriers, long.calls, short.numbers_by_cache)


class _WatchingCache(StatelessCache):
    """Notes the states that layers give it, and which module's code does."""

    def __init__(self, running: RunningModules) -> None:
        super().__init__()
        self._running = running
        self.shapes: dict[StateKey, StateShape] = {}
        self.modules: dict[nn.Module, None] = {}
        self.numbers_layers = False

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Notes whether the module that attends knows which layer it is."""
        known = getattr(self._running.innermost, "layer_idx", None)
        self.numbers_layers = self.numbers_layers or known != layer_idx
        return key_states, value_states

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
class _Watched:
    shapes: dict[StateKey, StateShape]
    calls: dict[nn.Module, ObservedCall]
    numbers_by_cache: bool


def _watch(model: PreTrainedModel, length: int, cache_name: str, device: torch.device) -> _Watched:
    """One run on `length` tokens."""
    running = RunningModules()
    cache = _WatchingCache(running)
    calls: dict[nn.Module, ObservedCall] = {}
    ids = torch.arange(length, device=device).unsqueeze(0)
    with running.tracking(model.modules()), _noting_calls(model, calls):
        model(input_ids=ids, position_ids=ids, use_cache=True, **{cache_name: cache})
    states = {module: calls[module] for module in cache.modules}
    return _Watched(cache.shapes, states, cache.numbers_layers)


@contextmanager
def _noting_calls(model: nn.Module, calls: dict[nn.Module, ObservedCall]) -> Iterator[None]:
    """Inside, `calls` gets what each module was last given, and what it gave."""

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[module] = ObservedCall(args, kwargs, tensors_of(output))

    with ExitStack() as stack:
        for module in model.modules():
            hook = module.register_forward_hook(note, with_kwargs=True)
            stack.callback(hook.remove)
        yield
