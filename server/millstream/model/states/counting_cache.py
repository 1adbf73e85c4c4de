"""Caches that hold nothing and tell a length, for models whose layers take positions from it.

Llama 4 scales its queries by the length of the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from millstream.errors import StartupError
from millstream.model.states.model_cache import StatelessCache


class CountingCache(StatelessCache):
    """A cache whose length is told for each token of a packed batch: a layer that adds the number
    of the token to it gets the token's position."""

    def __init__(self, positions: Tensor) -> None:
        """positions [T]: those of the packed tokens."""
        super().__init__()
        self._past = positions - torch.arange(len(positions), device=positions.device)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens came before, [T]; a number to those who call it."""
        return self._past  # type: ignore[return-value]


class ClaimedPast(StatelessCache):
    """A cache that claims that `past` tokens came before, and has none of them."""

    def __init__(self, past: int) -> None:
        super().__init__()
        self._past = past

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number that is claimed."""
        return self._past

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The number that is claimed."""
        return self._past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Masks are as long as the queries, behind what is claimed."""
        return query_length, self._past

    def update_indexer(self, indexer_key_states: Tensor, layer_idx: int) -> Tensor:
        """Refuses: an indexer keeps keys of its own."""
        raise StartupError("it keeps more of the past than keys, values and states")
