"""The kinds of work by which rows get their token, each queued on the device for all its rows.

A row that needs more than the argmax of its logits needs one of three kinds: the argmax after its
constraints (a greedy row), a draw from all tokens, or a draw from those that filters keep, judged
by some number of leaders. Kinds are compared by value, so rows that need the same are drawn
together; `work_of()` says which kind a row needs.

Rules: those of sampler.py; nothing here makes the host wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from millstream.core.plan import IMPOSSIBLE_TOKEN
from millstream.core.request import SamplingParams
from millstream.model.sampling import filters
from millstream.model.sampling.constraints import EXTREME, Constraints, clamped, constrain
from millstream.model.sampling.reductions import Workspace, best_of, block_maxima, float_rows, pick
from millstream.model.transfers import upload

UNDECIDED = -3
"""What a `FilteredDraw` gives a row for which its leaders were too few."""


class Row(NamedTuple):
    """One row of the step's logits, and how to draw from it.

    point: its random number, uniform in [0, 1).
    """

    index_in_batch: int
    params: SamplingParams
    constraints: Constraints | None
    point: float


Work = Callable[[Tensor, list[Row]], Tensor]
"""Draws n rows of logits [batch, vocab]: tokens [n] int64, negative where there is none."""


def work_of(row: Row, vocab: int) -> Work | None:
    """The kind of work that gives the row its token; None if the argmax of its logits does."""
    if row.params.is_greedy:
        return None if row.constraints is None else _take_best
    if not filters.has_filters(row.params):
        return _draw
    # The last count is the whole vocabulary, and top_k is below that.
    count = next(count for count in filters.leader_counts(vocab) if row.params.top_k < count)
    return FilteredDraw(count, filters.needs_population(row.params))


def draw_all(logits: Tensor, rows_by_work: dict[Work, list[Row]]) -> list[Tensor]:
    """For each kind of work the tokens [n] int64 of its rows. logits [batch, vocab]."""
    return [work(logits, rows) for work, rows in rows_by_work.items()]


def _take_best(logits: Tensor, rows: list[Row]) -> Tensor:
    """The most probable tokens [n] after constraints, or IMPOSSIBLE_TOKEN."""
    tokens: list[Tensor] = []
    for tile, space, _ in Workspace(rows, logits.shape[1], logits.device).tiles():
        processed = _processed(logits, tile, space)
        best, ids = best_of(processed, block_maxima(processed))
        tokens.append(ids.masked_fill_(best == float("-inf"), IMPOSSIBLE_TOKEN))
    return torch.cat(tokens)


def _draw(logits: Tensor, rows: list[Row]) -> Tensor:
    """Tokens [n] drawn by inverse transform sampling over the vocabulary, or IMPOSSIBLE_TOKEN."""
    tokens: list[Tensor] = []
    for tile, space, weights in Workspace(rows, logits.shape[1], logits.device).tiles():
        processed = _processed(logits, tile, space)
        scale = _scale(block_maxima(processed), tile)
        torch.softmax(scale.apply(processed, space), dim=-1, out=weights)
        ids = pick(weights, _points(tile, logits.device))
        tokens.append(ids.masked_fill_(scale.is_impossible, IMPOSSIBLE_TOKEN))
    return torch.cat(tokens)


@dataclass(frozen=True, slots=True)
class FilteredDraw:
    """A draw from what filters keep, judged by the `num_leaders` most probable tokens of a row.

    needs_population: whether the filters of its rows measure shares of all tokens.
    """

    num_leaders: int
    needs_population: bool

    def __call__(self, logits: Tensor, rows: list[Row]) -> Tensor:
        groups = filters.in_groups(rows, self.num_leaders)
        return torch.cat([self._draw(logits, group) for group in groups])

    def wider(self, vocab: int) -> FilteredDraw:
        """The draw with more leaders, for rows that this one left undecided."""
        counts = filters.leader_counts(vocab)
        return replace(self, num_leaders=counts[counts.index(self.num_leaders) + 1])

    def _draw(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """Tokens [n] of rows that are few enough to do at once; UNDECIDED where leaders lack."""
        count, by_all = self.num_leaders, self.needs_population
        vocab = logits.shape[1]
        leads, populations, impossible = [], [], []
        for tile, space, weights in Workspace(rows, vocab, logits.device).tiles():
            processed = _processed(logits, tile, space)
            maxima = block_maxima(processed)
            scale = _scale(maxima, tile)
            lead = filters.leaders(processed, maxima, count)
            bound = scale.apply(lead.bound.unsqueeze(1)).squeeze(1)
            leads.append(filters.Leaders(scale.apply(lead.values), lead.ids, bound))
            impossible.append(scale.is_impossible)
            if by_all:
                scaled = scale.apply(processed, space)
                with_entropy = any(row.params.typical_p < 1 for row in tile)
                populations.append(
                    filters.population(scaled, lead.ids, weights, with_entropy=with_entropy)
                )
        lead, is_impossible = filters.join(leads), torch.cat(impossible)
        everyone = filters.join_populations(populations) if by_all else None
        kept, weights, is_complete = filters.keep(lead, [row.params for row in rows], everyone)
        ids = filters.choose(lead, kept, weights, _points(rows, logits.device), vocab=vocab)
        if count < vocab:
            ids.masked_fill_(~is_complete, UNDECIDED)
        return ids.masked_fill_(is_impossible, IMPOSSIBLE_TOKEN)


class _Scale(NamedTuple):
    """How the logits of r rows become logits over temperature.

    best, temperatures: [r, 1] float32. is_impossible: [r] bool, whether no token is left.
    """

    best: Tensor
    temperatures: Tensor
    is_impossible: Tensor

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """values [r, n] less the best, over temperature: 0 for the best token, so that nothing can
        overflow. out: a tensor to write to, or None for a new one."""
        return torch.sub(values, self.best, out=out).div_(self.temperatures)


def _scale(maxima: Tensor, rows: Sequence[Row]) -> _Scale:
    """The scale of rows of logits, by their block maxima [r, blocks]."""
    numbers = [clamped(row.params.temperature, 1 / EXTREME, EXTREME) for row in rows]
    best = maxima.amax(dim=-1, keepdim=True)
    is_impossible = best == float("-inf")
    best.masked_fill_(is_impossible, 0.0)
    return _Scale(
        best, upload(torch.tensor(numbers).unsqueeze(1), maxima.device), is_impossible.squeeze(1)
    )


def _processed(logits: Tensor, rows: Sequence[Row], space: Tensor) -> Tensor:
    """The rows in float32 with their constraints applied; only `space` is written to."""
    processed = float_rows(logits, [row.index_in_batch for row in rows], space)
    constraints = [row.constraints for row in rows]
    if any(constraints):
        processed = space.copy_(processed)
        constrain(processed, constraints)
    return processed


def _points(rows: Sequence[Row], device: torch.device) -> Tensor:
    """The random numbers of the rows: [r] float64."""
    return upload(torch.tensor([row.point for row in rows], dtype=torch.float64), device)
