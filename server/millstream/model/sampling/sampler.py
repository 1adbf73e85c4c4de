"""Drawing the next token of every row of a step.

How a token is drawn. Every request has a random stream of its own, which is addressed by counter:
number i of the stream of seed s is made of the first 53 bits of BLAKE2b(s, i), and i counts the
tokens that the answer has so far. Nothing is carried on from one token to the next. So there is no
generator whose state would have to survive a preemption, or that rows would share: token i under
seed s is the same draw wherever and whenever its row is computed. The number then picks a token by
inverse transform sampling: it is the one at which the running sum of the probabilities, in the
order of the vocabulary, passes that share of their total.

How a step is drawn. The argmax of every row is computed first. Rows that need more than that are
grouped by the kind of work they need (see draws.py), and each kind is one series of operations on
the device for all of its rows. top-k, top-p, min-p and typical-p look at a row's most probable
tokens only, its leaders (see filters.py). For a few rows these are too few to decide by; such a row
gets UNDECIDED, and `finish()` queues it again with more leaders. By then the next step may be
queued already, on top of the tokens that `Drawing.tokens()` gave for these rows, so they are told
as late. Where a device has drawn the plain rows with the logits (see ahead.py), only the others are
left to draw.

Rules:
1. Rows that ask for nothing pay nothing: greedy rows are an argmax. Rows that do the same work do
   it together, and only that work.
2. A row's result depends on its logits, its request and its own random stream only, bit for bit.
   Preemption and neighbours change nothing.
3. Order as in transformers (`_get_logits_processor`): constraints (see constraints.py; greedy rows
   have them too), temperature, filters (see filters.py), draw.
4. All work of a step is queued first and its tokens come back together; only rows that are
   undecided make the host wait again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from millstream.core.plan import INVALID_TOKEN, Chunk
from millstream.core.request import Request
from millstream.model.sampling.ahead import DrawnAhead
from millstream.model.sampling.constraints import Constraints, is_constrained
from millstream.model.sampling.draws import UNDECIDED, Row, Work, draw_all, wider_work_of, work_of
from millstream.model.sampling.grammars import Grammars
from millstream.model.sampling.reductions import best_of, block_maxima
from millstream.model.transfers import Download, upload

_FORGET_AFTER = 32  # steps


def best_tokens(logits: Tensor) -> Tensor:
    """The most probable token of each row, the first of equals.

    logits [n, vocab] of any float dtype -> [n] int64; INVALID_TOKEN for a row that holds NaN or has
    no finite maximum.
    """
    best, ids = best_of(logits, block_maxima(logits))
    return ids.masked_fill_(~best.isfinite(), INVALID_TOKEN)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The draws of one step, queued on the device.

    logits: [n, vocab]. best: the argmax of each row [n], or INVALID_TOKEN. rows_by_work: the rows
    that need more. results: for each kind of work the tokens of its rows. plain: rows that were
    drawn ahead and need more, too. download: `best` as [1, n], or DrawnAhead's tokens [2, n], and
    `results`, on their way to the host. next_tokens: DrawnAhead's, or else `best`.
    """

    logits: Tensor
    best: Tensor
    rows_by_work: dict[Work, list[Row]]
    results: list[Tensor]
    plain: list[Row]
    download: Download
    next_tokens: Tensor

    @torch.inference_mode()
    def tokens(self) -> Tensor:
        """Token ids [n] int64, on the device and without waiting for it.

        A row that is undecided gets its most probable token for now; a row for which there is no
        token gets a negative number.
        """
        tokens = self.next_tokens
        for rows, drawn in zip(self.rows_by_work.values(), self.results, strict=True):
            indices = upload(torch.tensor([row.index_in_batch for row in rows]), tokens.device)
            decided = torch.where(drawn == UNDECIDED, self.best[indices], drawn)
            tokens = tokens.index_copy(0, indices, decided)
        return tokens


class StepTokens(NamedTuple):
    """What `Sampler.finish()` gives.

    tokens: one id for each row, as `Sampler.sample()` describes them. late: rows whose token is not
    the one that `Drawing.tokens()` gave for them.
    """

    tokens: list[int]
    late: list[int]


class Sampler:
    """Draws tokens; keeps the constraints of recent requests, so that they need not be rebuilt.

    Mutated by its own `launch()` only; grammars by `compile()` too. What it keeps never changes a
    result.
    """

    def __init__(
        self,
        grammars: Grammars | None = None,
        *,
        best_tokens: Callable[[Tensor], Tensor] = best_tokens,
    ) -> None:
        """grammars: for the model's tokenizer; None if no request has a grammar. best_tokens: a
        faster function with the same results, for logits like this model's."""
        self._grammars = grammars
        self._best_tokens = best_tokens
        # By request id, each with the number of the step that used it last.
        self._kept: dict[int, tuple[int, Constraints]] = {}
        self._num_steps = 0
        # After the guesses of the chunk that was looked at last.
        self._assuming: Constraints | None = None

    @property
    def kept_requests(self) -> list[int]:
        """Ids of the requests whose constraints are kept."""
        return list(self._kept)

    def is_compiled(self, request: Request) -> bool:
        """Whether the request's grammar, if it has one, is compiled."""
        return self._grammars is None or self._grammars.is_compiled(request)

    def compile(self, request: Request) -> None:
        """Compiles the request's grammar. In any thread."""
        if self._grammars is not None:
            self._grammars.compile(request)

    def sample(self, logits: Tensor, chunks: Sequence[Chunk]) -> list[int]:
        """One token id per chunk, at once. logits [n, vocab] of any float dtype: a row per chunk.

        INVALID_TOKEN for a row that holds NaN or has no finite maximum; IMPOSSIBLE_TOKEN where the
        request itself forbids every token.
        """
        return self.finish(self.launch(logits, chunks)).tokens

    @torch.inference_mode()
    def launch(
        self, logits: Tensor, chunks: Sequence[Chunk | None], ahead: DrawnAhead | None = None
    ) -> Drawing:
        """Queues the work of `sample()` on the device; `finish()` waits for it.

        logits [n, vocab] of any float dtype: a row per chunk. A row without a chunk (None) gets any
        token. ahead: the rows that are drawn already.
        """
        if not chunks:
            nobody = torch.empty(0, dtype=torch.int64, device=logits.device)
            return Drawing(logits, nobody, {}, [], [], Download([]), nobody)
        plain: list[Row] = []
        if ahead is None:
            tokens = self._best_tokens(logits).unsqueeze(0)
            next_tokens = tokens[0]
        else:
            tokens, next_tokens = ahead.tokens.clone(), ahead.next_tokens
        vocab = logits.shape[1]
        rows_by_work: dict[Work, list[Row]] = {}
        for index, chunk in enumerate(chunks):
            if chunk is None:
                continue
            if ahead is not None and (drawn := ahead.rows[index]) is not None:
                if not drawn.params.is_greedy:
                    plain.append(drawn)
                continue
            row = self._row(index, chunk, vocab)
            if row is not None and (work := work_of(row, vocab)) is not None:
                rows_by_work.setdefault(work, []).append(row)
        self._forget()
        results = draw_all(logits, rows_by_work)
        download = Download([tokens, *results])
        return Drawing(logits, tokens[0], rows_by_work, results, plain, download, next_tokens)

    @torch.inference_mode()
    def finish(self, drawing: Drawing) -> StepTokens:
        """The tokens of a step. Waits for the device, again for each round of undecided rows."""
        if not (lists := drawing.download.lists()):
            return StepTokens([], [])
        (best, *ahead), *results = lists
        tokens, undecided, num_looks = list(best), set[int](), 0
        rows = [*drawing.plain, *chain.from_iterable(drawing.rows_by_work.values())]
        drawn = [ahead[0][row.index_in_batch] for row in drawing.plain]
        drawn += chain.from_iterable(results)
        while rows:
            again: dict[Work, list[Row]] = {}
            num_looks += 1
            for row, token in zip(rows, drawn, strict=True):
                index = row.index_in_batch
                if tokens[index] == INVALID_TOKEN:
                    continue
                if token == UNDECIDED:
                    undecided.add(index)
                    work = wider_work_of(row, drawing.logits.shape[1], num_looks)
                    again.setdefault(work, []).append(row)
                else:
                    tokens[index] = token
            rows = list(chain.from_iterable(again.values()))
            results = Download(draw_all(drawing.logits, again)).lists()
            drawn = list(chain.from_iterable(results))
        return StepTokens(tokens, [row for row in undecided if tokens[row] != best[row]])

    def _row(self, index: int, chunk: Chunk, vocab: int) -> Row | None:
        """How row `index` of the logits is to be drawn from, with its number of the stream; None if
        it assumes what cannot be drawn."""
        params, constraints = chunk.request.sampling, None
        if is_constrained(chunk.request, chunk.num_generated):
            constraints = self._constraints(chunk, vocab)
            if constraints is None:
                return None
        return Row.of(index, params, constraints, counter=chunk.num_generated, vocab=vocab)

    def _constraints(self, chunk: Chunk, vocab: int) -> Constraints | None:
        """The constraints of the chunk's request at the end of its history, or after what it
        assumes; None if the request's grammar forbids that."""
        if chunk.assumed:
            # The chunk with one assumption less has come before.
            before = self._assuming if len(chunk.assumed) > 1 else self._kept[chunk.request_id][1]
            self._assuming = before and before.assuming(chunk.assumed[-1])
            return self._assuming
        _, kept = self._kept.get(chunk.request_id, (0, None))
        if kept is None or not kept.describes(chunk.history):
            grammar = None
            if chunk.request.grammar is not None:
                assert self._grammars is not None, "this runner has no tokenizer"
                grammar = self._grammars.progress(chunk.request, vocab)
            kept = Constraints(chunk.request, chunk.history, vocab, grammar)
        kept.advance()
        self._kept[chunk.request_id] = (self._num_steps, kept)
        return kept

    def _forget(self) -> None:
        """Drops constraints that no step used for a while: such requests have ended, or wait."""
        self._num_steps += 1
        oldest = self._num_steps - _FORGET_AFTER
        for request_id in [i for i, (used, _) in self._kept.items() if used < oldest]:
            del self._kept[request_id]
