"""Can a layer that takes positions from its cache's length be told each row's? The probe asks."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millstream.model.attention import BATCH_KWARG
from millstream.model.checks.model_failures import MODEL_FAILURES
from millstream.model.states.counting_cache import ClaimedPast, CountingCache
from millstream.model.states.model_cache import StatelessCache, cache_argument
from millstream.model.tolerance import REPEATED_LOGITS, logits_difference


class LonelyBatch(Protocol):
    """What attention is given in a run whose tokens see only themselves."""

    max_context: int


def counts_rows(model: PreTrainedModel, batch: LonelyBatch, device: torch.device) -> bool:
    """Whether rows of one call, told apart by a CountingCache, compute what each does alone behind
    as many tokens as its position."""
    last = batch.max_context - 1
    positions = torch.tensor([[0, last // 2, last]], device=device)
    ids = torch.arange(positions.shape[1], device=device).unsqueeze(0)

    name = cache_argument(model) or "past_key_values"

    def run(rows: slice, cache: StatelessCache) -> Tensor:
        options = {"use_cache": True, name: cache, BATCH_KWARG: batch}
        logits: Tensor = model(
            input_ids=ids[:, rows], position_ids=positions[:, rows], **options
        ).logits[0]
        return logits.float()

    try:
        together = run(slice(None), CountingCache(positions[0]))
    except MODEL_FAILURES:  # its code takes one number for all rows
        return False
    alone = [
        run(slice(row, row + 1), ClaimedPast(position))
        for row, position in enumerate(positions[0].tolist())
    ]
    return logits_difference(together, torch.cat(alone)) <= REPEATED_LOGITS
