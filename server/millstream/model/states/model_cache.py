"""What a model is given as its cache: transformers' interface, over the states of one step.

A layer asks for its states by `get_conv_state()` and `get_recurrent_state()`, computes, and gives
the new ones by `update_conv_state()` and `update_recurrent_state()`; the first kind may also be
changed in place. (transformers.cache_utils.Cache; what each method means is read from
`LinearAttentionLayer` there.) Keys and values go past this cache: attention keeps them itself.

Rule: a layer's rows are given to it in parts, and a part is what `within()` says. Reading gives
copies, so that a state which is read and not written stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, cat, nn
from transformers import DynamicCache

from millstream.model.states.state_cache import StateCache, StateKey
from millstream.model.states.state_step import NO_STATE, StateStep, Stretch


class LayerNumbers:
    """Which layer the attention that comes next belongs to, as the cache was told before it.

    One attention module may serve several layers, and then does not know itself.
    """

    def __init__(self) -> None:
        self._next: int | None = None

    def note(self, layer: int) -> None:
        """The attention that comes next is this layer's."""
        self._next = layer

    def take(self) -> int | None:
        """The layer of the attention that has come; None if the cache was not told."""
        layer, self._next = self._next, None
        return layer


_ARGUMENTS = ("cache", "past_key_values", "cache_params")


def cache_argument(model: nn.Module) -> str | None:
    """The name by which a model takes its cache; transformers changed it in 5.24."""
    names = inspect.signature(model.forward).parameters
    return next((name for name in _ARGUMENTS if name in names), None)


class StatelessCache(DynamicCache):
    """A cache for sequences that have nothing behind them and of which nothing is kept.

    numbers: told by update() which layer attends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = LayerNumbers()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """No tokens came before: positions are given, and attention knows its own."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """No tokens came before, as get_seq_length() says."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Masks are as long as the queries."""
        return query_length, 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Keys and values as they are: attention keeps them."""
        self.numbers.note(layer_idx)
        return key_states, value_states

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Tensor:
        """Keys of another kind as they are; the probe refuses models that have them."""
        return indexer_key_states

    def is_recording_past(self, layer_idx: int) -> bool:
        """States are never rolled back."""
        return False

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        """Whether a layer has a state to begin with."""
        return False

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a convolution [b, channels, kept], or None."""
        return None

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The recurrent state of a layer [b, ...], or None."""
        return None

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """New inputs [b, channels, length] behind those that are kept, or behind zeros."""
        return padded(conv_states, conv_kernel_size or conv_states.shape[-1])

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """A layer's new state [b, ...], as it is kept."""
        return recurrent_states


class ModelCache(StatelessCache):
    """The states of the step that is computed. Mutated by `Forward` and by the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.step: StateStep | None = None
        self._part: _Part | None = None

    @contextmanager
    def within(self, stretch: Stretch | None) -> Iterator[None]:
        """Inside, layers see the state of this stretch, or those of all decode rows. What they
        have changed is in the slots afterwards."""
        assert self.step is not None, "states belong to a step"
        part = self._part = _Part(self.step, stretch)
        try:
            yield
        finally:
            self._part = None
        part.write()

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        """Whether the sequences of this part have a state."""
        return self._part is not None and self._part.has_state

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a convolution, [b, channels, kept]; None at the start."""
        return self._of_part().read(StateKey(layer_idx, "conv", state_idx))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The recurrent state of a layer, [b, ...]; None at the start."""
        return self._of_part().read(StateKey(layer_idx, "recurrent", state_idx))

    def update_conv_state(
        self,
        conv_states: Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """New inputs [b, channels, length] behind those that are kept, or behind zeros."""
        part, key = self._of_part(), StateKey(layer_idx, "conv", state_idx)
        kept = part.cache.shapes[key].sizes[-1]
        before = part.read(key)
        old = [] if before is None else [before]
        inputs = padded(cat([*old, conv_states], dim=-1), kept)
        part.changed[key] = inputs[..., -kept:]
        return inputs

    def update_recurrent_state(
        self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        """A layer's new state [b, ...], as it is kept."""
        self._of_part().changed[StateKey(layer_idx, "recurrent", state_idx)] = recurrent_states
        return recurrent_states

    def _of_part(self) -> _Part:
        assert self._part is not None, "a layer asks for states outside of its own code"
        return self._part


class _Part:
    """The states of some rows while a layer computes them. changed: by key, [b, ...] each."""

    def __init__(self, step: StateStep, stretch: Stretch | None) -> None:
        self.cache: StateCache = step.cache
        self.changed: dict[StateKey, Tensor] = {}
        self._stretch = stretch
        self._slots = step.slots[:, : step.num_decodes]

    @property
    def has_state(self) -> bool:
        return self._stretch is None or self._stretch.source != NO_STATE or bool(self.changed)

    def read(self, key: StateKey) -> Tensor | None:
        """A copy that the layer may change; it is written in any case."""
        if key not in self.changed:
            if self._stretch is not None and self._stretch.source == NO_STATE:
                return None
            states, stretch = self.cache.tensors[key], self._stretch
            if stretch is None:
                self.changed[key] = states.index_select(0, self._slots[0])
            else:
                self.changed[key] = states[stretch.source : stretch.source + 1].clone()
        return self.changed[key]

    def write(self) -> None:
        for key, state in self.changed.items():
            states, stretch = self.cache.tensors[key], self._stretch
            if stretch is None:
                states.index_copy_(0, self._slots[1], state.to(states.dtype))
            else:
                states[stretch.target : stretch.target + 1].copy_(state)


def padded(inputs: Tensor, kept: int) -> Tensor:
    """inputs [b, channels, length] with zeros before them up to the length `kept`."""
    missing = kept - inputs.shape[-1]
    return F.pad(inputs, (missing, 0)) if missing > 0 else inputs
