"""The kinds of work by which rows get their token, each queued on the device for all its rows.

A row that needs more than the argmax of its logits needs one of three kinds: the argmax after its
constraints (a greedy row), a draw from all tokens, or a draw from those that filters keep, judged
by some number of leaders. Kinds are compared by value, so rows that need the same are drawn
together; `work_of()` says which kind a row needs.

Rules: those of sampler.py; nothing here makes the host wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from millstream.core.plan import IMPOSSIBLE_TOKEN
from millstream.core.request import SamplingParams
from millstream.model.sampling import filters
from millstream.model.sampling.constraints import Constraints, constrain
from millstream.model.sampling.numbers import Numbers, uniform
from millstream.model.sampling.reductions import Workspace, best_of, block_maxima, float_rows, pick

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

    @classmethod
    def of(
        cls,
        index: int,
        params: SamplingParams,
        constraints: Constraints | None,
        *,
        counter: int,
        vocab: int,
    ) -> Row:
        """Row `index` of logits over `vocab` tokens, drawn by number `counter` of its stream."""
        if params.is_greedy:
            return cls(index, params, constraints, 0.0)
        if params.top_k >= vocab:
            params = replace(params, top_k=0)
        return cls(index, params, constraints, uniform(params.seed, counter))


FloatRows = Callable[[range, Tensor], Tensor]
"""Gives some of n rows in float32 [r, vocab], only to be read; the tensor of this shape that it is
given is room for them."""


class Drawable(NamedTuple):
    """n rows to draw from. vocab: how many tokens each has."""

    float_rows: FloatRows
    numbers: Numbers
    vocab: int

    def tiles(self) -> Iterator[tuple[Tensor, Numbers, Tensor, Tensor]]:
        """Tile by tile: the rows [r, vocab] float32, how they are drawn, and two tensors of their
        shape to be written to. The first of those may hold the rows."""
        rows, device = range(len(self.numbers.points)), self.numbers.points.device
        for indices, space, other in Workspace(rows, self.vocab, device).tiles():
            tile = range(indices[0], indices[-1] + 1)
            yield self.float_rows(tile, space), self.numbers.part(tile), space, other


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


def wider_work_of(row: Row, vocab: int, num_looks: int) -> Work:
    """The work for a row that so many looks at leaders, each with more, have left undecided."""
    work = work_of(row, vocab)
    for _ in range(num_looks):
        assert isinstance(work, FilteredDraw)
        work = work.wider(vocab)
    assert work is not None
    return work


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
    """Tokens [n] drawn from all tokens, or IMPOSSIBLE_TOKEN."""
    return draw_from_all(_drawable(logits, rows))


def draw_from_all(rows: Drawable) -> Tensor:
    """Tokens [n] drawn by inverse transform sampling over the vocabulary, or IMPOSSIBLE_TOKEN."""
    tokens: list[Tensor] = []
    for processed, numbers, space, weights in rows.tiles():
        scale = _scale(block_maxima(processed), numbers)
        torch.softmax(scale.apply(processed, space), dim=-1, out=weights)
        ids = pick(weights, numbers.points)
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
        rows_to_draw = _drawable(logits, rows)
        return draw_filtered(rows_to_draw, self.num_leaders, by_all=self.needs_population)


def draw_filtered(
    rows: Drawable, count: int, *, by_all: bool, has_unfiltered: bool = False
) -> Tensor:
    """Tokens [n] drawn from what filters keep among `count` leaders; UNDECIDED where those are too
    few, IMPOSSIBLE_TOKEN where there is no token.

    by_all: whether filters of any row measure shares of all tokens. has_unfiltered: whether rows
    without filters are among them, which are drawn from all tokens; only with `by_all`.
    """
    leads, populations, picked, impossible = [], [], [], []
    for processed, numbers, space, weights in rows.tiles():
        maxima = block_maxima(processed)
        scale = _scale(maxima, numbers)
        lead = filters.leaders(processed, maxima, count)
        bound = scale.apply(lead.bound.unsqueeze(1)).squeeze(1)
        leads.append(filters.Leaders(scale.apply(lead.values), lead.ids, bound))
        impossible.append(scale.is_impossible)
        if by_all:
            scaled = scale.apply(processed, space)
            populations.append(
                filters.population(scaled, lead.ids, weights, with_entropy=numbers.has_typical)
            )
        if has_unfiltered:
            picked.append(pick(weights, numbers.points))
    lead, numbers = filters.join(leads), rows.numbers
    everyone = filters.join_populations(populations) if by_all else None
    kept, shares, is_complete = filters.keep(lead, numbers, everyone)
    ids = filters.choose(lead, kept, shares, numbers.points, vocab=rows.vocab)
    if count < rows.vocab:
        ids.masked_fill_(~is_complete, UNDECIDED)
    if has_unfiltered:
        ids = torch.where(numbers.is_filtered, ids, torch.cat(picked))
    return ids.masked_fill_(torch.cat(impossible), IMPOSSIBLE_TOKEN)


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


def _scale(maxima: Tensor, numbers: Numbers) -> _Scale:
    """The scale of rows of logits, by their block maxima [r, blocks]."""
    best = maxima.amax(dim=-1, keepdim=True)
    is_impossible = best == float("-inf")
    best.masked_fill_(is_impossible, 0.0)
    return _Scale(best, numbers.temperatures, is_impossible.squeeze(1))


def _drawable(logits: Tensor, rows: Sequence[Row]) -> Drawable:
    """Rows of logits [batch, vocab], after their constraints."""
    params, points = [row.params for row in rows], [row.point for row in rows]
    return Drawable(
        lambda tile, space: _processed(logits, rows[tile.start : tile.stop], space),
        Numbers.of_rows(params, points, logits.device),
        logits.shape[1],
    )


def _processed(logits: Tensor, rows: Sequence[Row], space: Tensor) -> Tensor:
    """The rows in float32 with their constraints applied; only `space` is written to."""
    processed = float_rows(logits, [row.index_in_batch for row in rows], space)
    constraints = [row.constraints for row in rows]
    if any(constraints):
        processed = space.copy_(processed)
        constrain(processed, constraints)
    return processed
