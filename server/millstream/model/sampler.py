"""Drawing the next token of every row.

Rules:
1. Rows that ask for nothing pay nothing: greedy rows are an argmax over maxima of blocks. Rows that
   do the same work do it together, and only that work.
2. A row's result depends on its logits, its request and its own random stream only, bit for bit.
   Number i of the stream of seed s is BLAKE2b(s, i), and i counts generated tokens, so preemption
   and neighbours change nothing.
3. Order as in transformers (`_get_logits_processor`): constraints (see constraints.py; greedy rows
   have them too), temperature, filters (see filters.py), draw.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from millstream.core.plan import IMPOSSIBLE_TOKEN, INVALID_TOKEN, Chunk
from millstream.core.request import SamplingParams
from millstream.model import filters
from millstream.model.blocked import Workspace, best_of, block_maxima, float_rows, pick
from millstream.model.constraints import Constraints, constrain, is_constrained
from millstream.model.grammar import Grammars

_FORGET_AFTER = 32  # steps
_LARGEST_LOOK = 2**21  # leaders of all rows that are looked at together
_UNDECIDED = -3
_TEMPERATURES = (1e-30, 1e30)  # beyond these nothing changes any more, and float32 ends


def uniform(seed: int, counter: int) -> float:
    """Number `counter` of the stream `seed`: uniform in [0, 1), 53 bits."""
    digest = blake2b(struct.pack("<QQ", seed, counter), digest_size=8).digest()
    number: int = struct.unpack("<Q", digest)[0]
    return (number >> 11) * 2.0**-53


class Row(NamedTuple):
    """Row `place` of the logits, and how to draw from it. number: its uniform random number."""

    place: int
    params: SamplingParams
    constraints: Constraints | None
    number: float


class Sampler:
    """Draws tokens; knows the constraints of recent requests, so that they need not be rebuilt.

    Mutated by its own `sample()` only. What it knows never changes a result.
    """

    def __init__(self, grammars: Grammars | None = None) -> None:
        """grammars: of the model, if requests may have a grammar."""
        self._grammars = grammars
        self._known: dict[int, tuple[int, Constraints]] = {}
        self._num_steps = 0

    @torch.inference_mode()
    def sample(self, logits: Tensor, chunks: Sequence[Chunk]) -> list[int]:
        """One token id per chunk; logits [n, vocab] of any float dtype, a row for each of them.

        INVALID_TOKEN for a row that holds NaN or has no finite maximum; IMPOSSIBLE_TOKEN where the
        request itself forbids every token.
        """
        if not chunks:
            return []
        best, ids = best_of(logits, block_maxima(logits))
        tokens: list[int] = ids.masked_fill_(~best.isfinite(), INVALID_TOKEN).tolist()
        kinds: dict[Callable[[Tensor, list[Row]], list[int]], list[Row]] = {}
        for index, chunk in enumerate(chunks):
            row = self._row(index, chunk, logits.shape[1])
            if tokens[index] != INVALID_TOKEN and (work := _work(row)) is not None:
                kinds.setdefault(work, []).append(row)
        self._forget()
        for work, rows in kinds.items():
            for row, token in zip(rows, work(logits, rows), strict=True):
                tokens[row.place] = token
        return tokens

    def _row(self, index: int, chunk: Chunk, vocab: int) -> Row:
        params, constraints = chunk.request.sampling, None
        if is_constrained(chunk.request, chunk.num_generated):
            constraints = self._constraints(chunk, vocab)
        if params.is_greedy:
            return Row(index, params, constraints, 0.0)
        if params.top_k >= vocab:
            params = replace(params, top_k=0)
        return Row(index, params, constraints, uniform(params.seed, chunk.num_generated))

    def _constraints(self, chunk: Chunk, vocab: int) -> Constraints:
        _, known = self._known.get(chunk.request_id, (0, None))
        if known is None or not known.describes(chunk.history):
            grammar = None
            if chunk.request.grammar is not None:
                assert self._grammars is not None, "this runner has no tokenizer"
                grammar = self._grammars.progress(chunk.request, vocab)
            known = Constraints(chunk.request, chunk.history, vocab, grammar)
        known.advance()
        self._known[chunk.request_id] = (self._num_steps, known)
        return known

    def _forget(self) -> None:
        """Drops what was not used for some steps: such requests have ended, or wait."""
        self._num_steps += 1
        oldest = self._num_steps - _FORGET_AFTER
        for request_id in [i for i, (used, _) in self._known.items() if used < oldest]:
            del self._known[request_id]


def _work(row: Row) -> Callable[[Tensor, list[Row]], list[int]] | None:
    """What the row takes after the argmax of its logits."""
    if row.params.is_greedy:
        return None if row.constraints is None else _take_best
    if not filters.has_filters(row.params):
        return _draw
    return _draw_by_all if filters.needs_population(row.params) else _draw_by_leaders


def _take_best(logits: Tensor, rows: list[Row]) -> list[int]:
    tokens: list[int] = []
    for tile, space, _ in Workspace(rows, logits.shape[1], logits.device).tiles():
        processed = _processed(logits, tile, space)
        best, ids = best_of(processed, block_maxima(processed))
        tokens += ids.masked_fill_(best == float("-inf"), IMPOSSIBLE_TOKEN).tolist()
    return tokens


def _draw(logits: Tensor, rows: list[Row]) -> list[int]:
    """Inverse transform sampling in vocabulary order over all tokens."""
    tokens: list[Tensor] = []
    for tile, space, weights in Workspace(rows, logits.shape[1], logits.device).tiles():
        processed = _processed(logits, tile, space)
        scale = _scale(block_maxima(processed), tile)
        torch.softmax(scale.apply(processed, space), dim=-1, out=weights)
        ids = pick(weights, _points(tile, logits.device))
        tokens.append(ids.masked_fill_(scale.is_impossible, IMPOSSIBLE_TOKEN))
    result: list[int] = torch.cat(tokens).tolist()
    return result


def _draw_by_all(logits: Tensor, rows: list[Row]) -> list[int]:
    return _draw_filtered(logits, rows, by_all=True)


def _draw_by_leaders(logits: Tensor, rows: list[Row]) -> list[int]:
    return _draw_filtered(logits, rows, by_all=False)


def _draw_filtered(logits: Tensor, rows: list[Row], *, by_all: bool) -> list[int]:
    """Looks at as many leaders of each row as its filters take. by_all: needs_population()."""
    vocab = logits.shape[1]
    tokens: dict[int, int] = {}
    for count in filters.looks(vocab):
        left = [row for row in rows if row.place not in tokens]
        left = [row for row in left if row.params.top_k < count]
        size = max(1, _LARGEST_LOOK // count)
        for start in range(0, len(left), size):
            slab = left[start : start + size]
            for row, token in zip(slab, _look(logits, slab, count, by_all=by_all), strict=True):
                if token != _UNDECIDED:
                    tokens[row.place] = token
    return [tokens[row.place] for row in rows]


def _look(logits: Tensor, rows: list[Row], count: int, *, by_all: bool) -> list[int]:
    """Tokens drawn from what the filters keep of `count` leaders, or _UNDECIDED."""
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
        ids.masked_fill_(~is_complete, _UNDECIDED)
    tokens: list[int] = ids.masked_fill_(is_impossible, IMPOSSIBLE_TOKEN).tolist()
    return tokens


class _Scale(NamedTuple):
    """best, temperatures [r, 1]; is_impossible [r]: no token is left."""

    best: Tensor
    temperatures: Tensor
    is_impossible: Tensor

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits [r, n] over temperature; the best token's become 0, so nothing can overflow."""
        return torch.sub(values, self.best, out=out).div_(self.temperatures)


def _scale(maxima: Tensor, rows: Sequence[Row]) -> _Scale:
    smallest, largest = _TEMPERATURES
    numbers = [min(max(row.params.temperature, smallest), largest) for row in rows]
    best = maxima.amax(dim=-1, keepdim=True)
    is_impossible = best == float("-inf")
    best.masked_fill_(is_impossible, 0.0)
    return _Scale(
        best, torch.tensor(numbers).unsqueeze(1).to(maxima.device), is_impossible.squeeze(1)
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
    return torch.tensor([row.number for row in rows], dtype=torch.float64).to(device)
