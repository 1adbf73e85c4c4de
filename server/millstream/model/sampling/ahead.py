"""Draws that are queued right behind the logits, when it is not known yet what was drawn before.

What most rows need is known when a step is planned: a temperature, filters, and the number of their
random stream, since its counter is the length of the answer. Such rows are plain. Their draws need
nothing from the host but these numbers, so a device can begin them as soon as it has the logits,
and they can be captured with fixed memory for the numbers. All other rows are drawn when their
history is known: those with constraints, and the few whose filters may need to see more than the
usual number of leaders, or a distance to the entropy (typical-p).

Rule: a plain row gets the token that `Sampler.launch()` gives it without this file, bit for bit,
because the same functions compute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.plan import UNKNOWN_TOKEN, Chunk
from millstream.core.request import SamplingParams
from millstream.model.sampling import filters
from millstream.model.sampling.constraints import is_constrained
from millstream.model.sampling.draws import Drawable, Row, draw_filtered, draw_from_all
from millstream.model.sampling.numbers import Numbers, words_of
from millstream.model.sampling.reductions import float_rows

_GREEDY = SamplingParams(temperature=0.0)


class Kind(IntEnum):
    """What the plain rows of a step ask for at most: their argmax, a draw from all tokens, or a
    draw from those that filters keep. Each is more work than the one before, and serves its rows,
    too."""

    GREEDY = 0
    UNFILTERED = 1
    FILTERED = 2


class DrawnAhead(NamedTuple):
    """The draws of a step's plain rows, queued on the device.

    rows: one for each row of the step, None where it is not plain. tokens: [2, n] int64, in memory
    that the next step writes to again: the argmax of each row, as `best_tokens()` gives it, and for
    plain rows their token, or UNDECIDED or IMPOSSIBLE_TOKEN. next_tokens: [n] int64 in such memory,
    the same tokens, the argmax for rows that are undecided or not plain.
    """

    rows: Sequence[Row | None]
    tokens: Tensor
    next_tokens: Tensor


def plain_rows(chunks: Sequence[Chunk], vocab: int) -> list[Row | None]:
    """How each of the chunks is drawn from logits over `vocab` tokens; None if it is not plain."""
    most = filters.leader_counts(vocab)[0]
    return [_plain_row(index, chunk, vocab, most) for index, chunk in enumerate(chunks)]


def kind_of(rows: Sequence[Row | None]) -> Kind:
    """The work that gives all plain rows among these their token."""
    drawn = [row.params for row in rows if row is not None and not row.params.is_greedy]
    if not drawn:
        return Kind.GREEDY
    return Kind.FILTERED if any(map(filters.has_filters, drawn)) else Kind.UNFILTERED


def words_of_rows(rows: Sequence[Row | None], count: int) -> NDArray[np.int64]:
    """The numbers of the rows as words [NUM_WORDS, count]. Rows that are not plain, and those up to
    `count` that are not there, are greedy."""
    params = [_GREEDY if row is None else row.params for row in rows]
    points = [0.0 if row is None else row.point for row in rows]
    num_missing = count - len(rows)
    return words_of(params + [_GREEDY] * num_missing, points + [0.0] * num_missing)


def draw_plain(logits: Tensor, best: Tensor, words: Tensor, kind: Kind) -> Tensor:
    """Tokens [n] of plain rows, as DrawnAhead describes them.

    logits: [n, vocab] of any float dtype. best: [n], their `best_tokens()`. words: [NUM_WORDS, n]
    int64, from `words_of_rows()`. kind: what the rows ask for at most.
    """
    if kind is Kind.GREEDY:
        return best
    numbers = Numbers.of_words(words, has_top_p=True, has_typical=False)
    is_greedy = numbers.temperatures == 0
    rows = Drawable(
        lambda tile, space: float_rows(logits, list(tile), space),
        numbers._replace(temperatures=numbers.temperatures.masked_fill(is_greedy, 1.0)),
        logits.shape[1],
    )
    if kind is Kind.UNFILTERED:
        tokens = draw_from_all(rows)
    else:
        count = filters.leader_counts(rows.vocab)[0]
        tokens = draw_filtered(rows, count, by_all=True, has_unfiltered=True)
    return torch.where(is_greedy.squeeze(1), best, tokens)


def _plain_row(index: int, chunk: Chunk, vocab: int, most: int) -> Row | None:
    """Row `index`, if it is plain; most: how many leaders are looked at first."""
    params = chunk.request.sampling
    # The token that the step before draws is part of the answer by the time this one is drawn.
    counter = chunk.num_generated + (chunk.tokens[-1] == UNKNOWN_TOKEN)
    if is_constrained(chunk.request, counter):
        return None
    row = Row.of(index, params, None, counter=counter, vocab=vocab)
    if not params.is_greedy and (row.params.top_k >= most or params.typical_p < 1):
        return None
    return row
