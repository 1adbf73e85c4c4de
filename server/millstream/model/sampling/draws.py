"""The kinds of work by which rows get their token, queued on the device together.

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
"""What a `Look` gives a row for which it was too narrow."""


class Row(NamedTuple):
    """Row `place` of the logits, and how to draw from it. number: its uniform random number."""

    place: int
    params: SamplingParams
    constraints: Constraints | None
    number: float


Work = Callable[[Tensor, list[Row]], Tensor]
"""What rows take after the argmax: tokens [n] of logits, negative where there is none."""


def work_of(row: Row, vocab: int) -> Work | None:
    """What the row takes after the argmax of its logits."""
    if row.params.is_greedy:
        return None if row.constraints is None else _take_best
    if not filters.has_filters(row.params):
        return _draw
    # The last look is at everything, and top_k is below that.
    count = next(count for count in filters.leader_counts(vocab) if row.params.top_k < count)
    return Look(count, filters.needs_population(row.params))


def drawn(logits: Tensor, kinds: dict[Work, list[Row]]) -> list[Tensor]:
    return [work(logits, rows) for work, rows in kinds.items()]


def _take_best(logits: Tensor, rows: list[Row]) -> Tensor:
    tokens: list[Tensor] = []
    for tile, space, _ in Workspace(rows, logits.shape[1], logits.device).tiles():
        processed = _processed(logits, tile, space)
        best, ids = best_of(processed, block_maxima(processed))
        tokens.append(ids.masked_fill_(best == float("-inf"), IMPOSSIBLE_TOKEN))
    return torch.cat(tokens)


def _draw(logits: Tensor, rows: list[Row]) -> Tensor:
    """Inverse transform sampling in vocabulary order over all tokens."""
    tokens: list[Tensor] = []
    for tile, space, weights in Workspace(rows, logits.shape[1], logits.device).tiles():
        processed = _processed(logits, tile, space)
        scale = _scale(block_maxima(processed), tile)
        torch.softmax(scale.apply(processed, space), dim=-1, out=weights)
        ids = pick(weights, _points(tile, logits.device))
        tokens.append(ids.masked_fill_(scale.is_impossible, IMPOSSIBLE_TOKEN))
    return torch.cat(tokens)


@dataclass(frozen=True, slots=True)
class Look:
    """Looks at so many leaders of each row. by_all: needs_population() of its rows."""

    leaders: int
    by_all: bool

    def __call__(self, logits: Tensor, rows: list[Row]) -> Tensor:
        groups = filters.in_groups(rows, self.leaders)
        return torch.cat(
            [_look(logits, group, self.leaders, by_all=self.by_all) for group in groups]
        )

    def wider(self, vocab: int) -> Look:
        """The next one, for rows that this one left undecided."""
        counts = filters.leader_counts(vocab)
        return replace(self, leaders=counts[counts.index(self.leaders) + 1])


def _look(logits: Tensor, rows: Sequence[Row], count: int, *, by_all: bool) -> Tensor:
    """Tokens drawn from what the filters keep of `count` leaders, or UNDECIDED."""
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
    """best, temperatures [r, 1]; is_impossible [r]: no token is left."""

    best: Tensor
    temperatures: Tensor
    is_impossible: Tensor

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits [r, n] over temperature; the best token's become 0, so nothing can overflow."""
        return torch.sub(values, self.best, out=out).div_(self.temperatures)


def _scale(maxima: Tensor, rows: Sequence[Row]) -> _Scale:
    numbers = [clamped(row.params.temperature, 1 / EXTREME, EXTREME) for row in rows]
    best = maxima.amax(dim=-1, keepdim=True)
    is_impossible = best == float("-inf")
    best.masked_fill_(is_impossible, 0.0)
    return _Scale(
        best, upload(torch.tensor(numbers).unsqueeze(1), maxima.device), is_impossible.squeeze(1)
    )


def _processed(logits: Tensor, rows: Sequence[Row], space: Tensor) -> Tensor:
    """The rows in float32 with their constraints applied; only `space` is written to."""
    processed = float_rows(logits, [row.place for row in rows], space)
    constraints = [row.constraints for row in rows]
    if any(constraints):
        processed = space.copy_(processed)
        constrain(processed, constraints)
    return processed


def _points(rows: Sequence[Row], device: torch.device) -> Tensor:
    return upload(torch.tensor([row.number for row in rows], dtype=torch.float64), device)
