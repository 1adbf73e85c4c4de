"""One forward call of a transformers model with millstream's attention."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from millstream.model.attention import (
    ATTENTION_NAME,
    BATCH_KWARG,
    WINDOWS_KWARG,
    AttentionBatch,
)


class Shortcut(Protocol):
    """Computes what the model's own code computes, for batches that it knows."""

    def __call__(
        self, token_ids: Tensor, positions: Tensor, *, rows: Tensor, batch: AttentionBatch
    ) -> Tensor | None:
        """token_ids, positions [T] -> logits [len(rows), vocab], or None."""
        ...


class Forward:
    """Calls the model on packed tokens; computes the output layer only for wanted rows.

    shortcut: asked first, where there is one.
    """

    def __init__(self, model: PreTrainedModel, windows: dict[int, int | None]) -> None:
        """windows: the sliding window of each layer index, None where all is seen."""
        self.model = model
        self._windows = windows
        self.shortcut: Shortcut | None = None
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters
        model.set_attn_implementation(ATTENTION_NAME)

    def __call__(
        self, input_ids: Tensor, positions: Tensor, *, rows: Tensor, batch: AttentionBatch
    ) -> Tensor:
        """input_ids, positions [1, T] -> logits [len(rows), vocab]. Without rows: no logits."""
        if self.shortcut is not None:
            found = self.shortcut(input_ids[0], positions[0], rows=rows, batch=batch)
            if found is not None:
                return found
        options: dict[str, Any] = {BATCH_KWARG: batch, WINDOWS_KWARG: self._windows}
        if self._keeps_rows:
            # Some models cannot take an empty selection; one row costs next to nothing.
            options["logits_to_keep"] = rows if len(rows) else rows.new_zeros(1)
        logits: Tensor = self.model(
            input_ids=input_ids, position_ids=positions, use_cache=False, **options
        ).logits[0]
        return logits[: len(rows)] if self._keeps_rows else logits[rows]
