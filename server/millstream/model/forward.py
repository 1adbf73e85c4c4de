"""One forward call of a transformers model with millstream's attention."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from millstream.model.attention import (
    ATTENTION_NAME,
    BATCH_KWARG,
    NUMBERS_KWARG,
    REACHES_KWARG,
    AttentionBatch,
    Reach,
    use_attention,
)
from millstream.model.states.counting_cache import CountingCache
from millstream.model.states.model_cache import ModelCache, cache_argument
from millstream.model.states.observation import ObservedStates
from millstream.model.states.splitting import Splitting
from millstream.model.states.state_step import StateStep


class Shortcut(Protocol):
    """Computes what the model's own code computes, for batches that it knows."""

    def __call__(
        self, token_ids: Tensor, positions: Tensor, *, rows: Tensor, batch: AttentionBatch
    ) -> Tensor | None:
        """token_ids, positions [T] -> logits [len(rows), vocab], or None."""
        ...


class Forward:
    """Calls the model on packed tokens; computes the output layer only for wanted rows.

    shortcut: asked first, where there is one. splitting: how modules with states are called, for a
    model that has them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reaches: dict[int, Reach],
        observed: ObservedStates | None = None,
        *,
        counts_by_cache: bool = False,
    ) -> None:
        """reaches: how far back each layer sees, by its index. observed: what layers keep of a
        sequence, if they do. counts_by_cache: whether they take positions from a cache's length."""
        self.model = model
        self._reaches = reaches
        self._cache_name = cache_argument(model) or "past_key_values"
        self.observed = observed
        self._counts_by_cache = counts_by_cache
        self.shortcut: Shortcut | None = None
        self.splitting: Splitting | None = None
        if observed is not None:
            self._cache = ModelCache()
            if observed.carriers:
                self.splitting = Splitting(observed.carriers)
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters
        use_attention(model, ATTENTION_NAME)

    def __call__(
        self, input_ids: Tensor, positions: Tensor, *, rows: Tensor, batch: AttentionBatch
    ) -> Tensor:
        """input_ids, positions [1, T] -> logits [len(rows), vocab]. Without rows: no logits."""
        if self.shortcut is not None:
            found = self.shortcut(input_ids[0], positions[0], rows=rows, batch=batch)
            if found is not None:
                return found
        options: dict[str, Any] = {BATCH_KWARG: batch, REACHES_KWARG: self._reaches}
        if self._keeps_rows:
            # Some models cannot take an empty selection; one row costs next to nothing.
            options["logits_to_keep"] = rows if len(rows) else rows.new_zeros(1)
        logits = self._call(input_ids, positions, options, batch.states)
        return logits[: len(rows)] if self._keeps_rows else logits[rows]

    def _call(
        self,
        input_ids: Tensor,
        positions: Tensor,
        options: dict[str, Any],
        states: StateStep | None,
    ) -> Tensor:
        """What the model itself computes, [T or fewer, vocab]."""
        options["use_cache"] = self.observed is not None
        if self._counts_by_cache:
            options |= {"use_cache": True, self._cache_name: CountingCache(positions[0])}
        if self.observed is not None:
            self._cache.step = states
            options[self._cache_name] = self._cache
            if self.observed.numbers_by_cache:
                options[NUMBERS_KWARG] = self._cache.numbers
        splitting = self.splitting if states is not None else None
        with nullcontext() if splitting is None else splitting.installed():
            logits: Tensor = self.model(
                input_ids=input_ids, position_ids=positions, **options
            ).logits[0]
        return logits
