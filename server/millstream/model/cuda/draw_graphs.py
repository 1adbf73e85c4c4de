"""The draws of a captured step's plain rows in graphs as well: tokens without a launch from Python.

Rules:
1. The argmax of each row is captured with the forward pass, so a step whose plain rows are all
   greedy is one graph.
2. Where rows draw, a second graph is replayed behind it: one that draws from all tokens, or one
   that filters, too. Each size has both. They read the logits where the forward pass leaves them.
3. What the rows draw by travels in the step's one copy.
4. The tokens stay where the next captured step finds them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from millstream.model.cuda.recording import Record, Recording
from millstream.model.sampling.ahead import DrawnAhead, Kind, draw_plain
from millstream.model.sampling.draws import UNDECIDED, Row
from millstream.model.sampling.sampler import best_tokens


class DrawGraphs:
    """The graphs that draw, and the memory of their tokens. Mutated by `capture()` only."""

    def __init__(self, *, words: Tensor, next_tokens: Tensor) -> None:
        """words: [NUM_WORDS, r] int64, where the numbers of up to r rows will be. next_tokens:
        [r or more] int64, where the tokens are to go that the next step begins with."""
        self._words, self._next_tokens = words, next_tokens
        self._tokens = torch.zeros(2, words.shape[1], dtype=torch.int64, device=words.device)
        self._recordings: dict[tuple[int, Kind], Recording] = {}

    @property
    def graph_bytes(self) -> list[int]:
        """What each graph took of the device's memory, in the order of their capture."""
        return [recording.num_bytes for recording in self._recordings.values()]

    def take_best(self, logits: Tensor) -> None:
        """Makes the argmax of each row of logits [n, vocab] its token. Captured with them."""
        best = best_tokens(logits)
        self._tokens[:, : len(best)] = best
        self._next_tokens[: len(best)] = best

    @torch.inference_mode()
    def capture(self, record: Record, logits: Tensor) -> None:
        """Captures the draws from logits [n, vocab] that are always at this place."""
        for kind in (Kind.FILTERED, Kind.UNFILTERED):
            draw = partial(self._draw, logits, kind)
            self._recordings[len(logits), kind] = record(draw)

    def draw(self, rows: list[Row | None], size: int, kind: Kind) -> DrawnAhead:
        """The draws of a step that has just been replayed with `size` rows; its numbers are there.

        rows: those of the step, None where they are not plain. kind: what they ask for at most.
        """
        if kind is not Kind.GREEDY:
            self._recordings[size, kind].replay()
        count = len(rows)
        return DrawnAhead(rows, self._tokens[:, :count], self._next_tokens[:count])

    def _draw(self, logits: Tensor, kind: Kind) -> Tensor:
        size = len(logits)
        best, tokens = self._tokens[:, :size]
        tokens.copy_(draw_plain(logits, best, self._words[:, :size], kind))
        is_undecided = tokens == UNDECIDED
        return self._next_tokens[:size].copy_(torch.where(is_undecided, best, tokens))
