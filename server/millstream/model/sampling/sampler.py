"""Drawing the next token of every row.

Rules:
1. Rows that ask for nothing pay nothing: greedy rows are an argmax. Rows that do the same work do
   it together, and only that work.
2. A row's result depends on its logits, its request and its own random stream only, bit for bit.
   Number i of the stream of seed s is BLAKE2b(s, i), and i counts generated tokens, so preemption
   and neighbours change nothing.
3. Order as in transformers (`_get_logits_processor`): constraints (see constraints.py; greedy rows
   have them too), temperature, filters (see filters.py), draw.
4. All work of a step is queued first and its tokens come back together; only rows whose filters
   turn out to need another look make the host wait again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple

import torch
from torch import Tensor

from millstream.core.plan import INVALID_TOKEN, Chunk
from millstream.model.sampling.constraints import Constraints, is_constrained
from millstream.model.sampling.draws import UNDECIDED, Look, Row, Work, drawn, work_of
from millstream.model.sampling.grammars import Grammars
from millstream.model.sampling.reductions import best_of, block_maxima
from millstream.model.transfers import Download, upload

_FORGET_AFTER = 32  # steps


def uniform(seed: int, counter: int) -> float:
    """Number `counter` of the stream `seed`: uniform in [0, 1), 53 bits."""
    digest = blake2b(struct.pack("<QQ", seed, counter), digest_size=8).digest()
    number: int = struct.unpack("<Q", digest)[0]
    return (number >> 11) * 2.0**-53


def best_tokens(logits: Tensor) -> Tensor:
    """[n, vocab] -> the most probable token of each row [n], the first of equals; INVALID_TOKEN
    for a row that holds NaN or has no finite maximum."""
    best, ids = best_of(logits, block_maxima(logits))
    return ids.masked_fill_(~best.isfinite(), INVALID_TOKEN)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The draws of one step, under way. found: every row's argmax, then of each kind of work the
    tokens of its rows; download: the same."""

    logits: Tensor
    kinds: dict[Work, list[Row]]
    found: list[Tensor]
    download: Download

    @torch.inference_mode()
    def tokens(self) -> Tensor:
        """[n] on the device: the best one in a row that needs another look; a negative number in
        a row for which there is none."""
        best, *results = self.found
        tokens = best
        for rows, found in zip(self.kinds.values(), results, strict=True):
            places = upload(torch.tensor([row.place for row in rows]), best.device)
            known = torch.where(found == UNDECIDED, best[places], found)
            tokens = tokens.index_copy(0, places, known)
        return tokens


class Drawn(NamedTuple):
    """tokens: as of `Sampler.sample()`; late: rows in which `Drawing.tokens()` has another one."""

    tokens: list[int]
    late: list[int]


class Sampler:
    """Draws tokens; knows the constraints of recent requests, so that they need not be rebuilt.

    Mutated by its own `launch()` only. What it knows never changes a result.
    """

    def __init__(
        self,
        grammars: Grammars | None = None,
        *,
        best_tokens: Callable[[Tensor], Tensor] = best_tokens,
    ) -> None:
        """grammars: of the model, if requests may have a grammar. best_tokens: another function
        that does the same, for logits like this model's."""
        self._grammars = grammars
        self._best_tokens = best_tokens
        self._known: dict[int, tuple[int, Constraints]] = {}
        self._num_steps = 0

    def sample(self, logits: Tensor, chunks: Sequence[Chunk]) -> list[int]:
        """One token id per chunk; logits [n, vocab] of any float dtype, a row for each of them.

        INVALID_TOKEN for a row that holds NaN or has no finite maximum; IMPOSSIBLE_TOKEN where the
        request itself forbids every token.
        """
        return self.finish(self.launch(logits, chunks)).tokens

    @torch.inference_mode()
    def launch(self, logits: Tensor, chunks: Sequence[Chunk | None]) -> Drawing:
        """Queues the work of `sample()`; the host need not wait for it. A row for which there is no
        chunk gets its argmax."""
        if not chunks:
            return Drawing(logits, {}, [], Download([]))
        ids = self._best_tokens(logits)
        vocab = logits.shape[1]
        kinds: dict[Work, list[Row]] = {}
        for index, chunk in enumerate(chunks):
            if chunk is None:
                continue
            row = self._row(index, chunk, vocab)
            if (work := work_of(row, vocab)) is not None:
                kinds.setdefault(work, []).append(row)
        self._forget()
        found = [ids, *drawn(logits, kinds)]
        return Drawing(logits, kinds, found, Download(found))

    @torch.inference_mode()
    def finish(self, drawing: Drawing) -> Drawn:
        """Waits until the device has the tokens."""
        if not (lists := drawing.download.lists()):
            return Drawn([], [])
        tokens: list[int]
        tokens, *results = lists
        best, looked_again = list(tokens), set[int]()
        kinds = drawing.kinds
        while kinds:
            again: dict[Work, list[Row]] = {}
            for (work, rows), found in zip(kinds.items(), results, strict=True):
                for row, token in zip(rows, found, strict=True):
                    if tokens[row.place] == INVALID_TOKEN:
                        continue
                    if token == UNDECIDED:
                        assert isinstance(work, Look)
                        looked_again.add(row.place)
                        again.setdefault(work.wider(drawing.logits.shape[1]), []).append(row)
                    else:
                        tokens[row.place] = token
            kinds = again
            results = Download(drawn(drawing.logits, kinds)).lists()
        return Drawn(tokens, [row for row in looked_again if tokens[row] != best[row]])

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
