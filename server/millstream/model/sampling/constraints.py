"""What requests shift or forbid: penalties, biases and bans, applied to logits in place.

Rules:
1. Order as in transformers (`_get_logits_processor`): logit bias, repetition penalty, [frequency
   and presence penalty], bad words, stop tokens before min_tokens, allowed tokens, grammar.
   Temperature and the filters come after all of them. Where a grammar leaves nothing but the end,
   min_tokens does not forbid it.
2. Only the logits concerned are touched. What a request needs is compiled once, and its counts
   grow by the new tokens: a step costs the distinct tokens of a history, never its length.
3. Token ids outside the logits cannot be drawn, so nothing is done for them.
4. Finite logits stay finite or become -inf: what a client asks for never looks like a broken model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millstream.core.request import Request
from millstream.model.sampling.grammars import Progress
from millstream.model.sampling.numbers import EXTREME, clamped
from millstream.model.transfers import upload

Ids = NDArray[np.int64]
Values = NDArray[np.float32]

_LARGEST = 3.0e38


def is_constrained(request: Request, num_generated: int) -> bool:
    """Whether the request changes its next logits, apart from temperature and filters."""
    params = request.sampling
    return bool(
        params.repetition_penalty != 1.0
        or params.frequency_penalty
        or params.presence_penalty
        or params.logit_bias
        or params.bad_words
        or params.allowed_token_ids
        or request.grammar is not None
        or (num_generated < params.min_tokens and request.stop_token_ids)
    )


class Counts:
    """The distinct tokens of a history, each with how often it was generated."""

    def __init__(self, prompt: Iterable[int], vocab: int) -> None:
        """prompt: tokens that count as seen, not as generated. vocab: of the logits."""
        unique = np.unique(np.fromiter(prompt, np.int64))
        unique = unique[unique < vocab]
        self._vocab = vocab
        self._size = len(unique)
        self._ids: Ids = np.concatenate([unique, np.zeros(64, np.int64)])
        self._counts: Values = np.zeros(len(self._ids), np.float32)
        self._places = {token: place for place, token in enumerate(unique.tolist())}

    @property
    def ids(self) -> Ids:
        """The distinct tokens [k], in the order of their first use, those of the prompt sorted."""
        return self._ids[: self._size]

    @property
    def generated(self) -> Values:
        """How often each of `ids` was generated, [k]."""
        return self._counts[: self._size]

    def copy(self) -> Counts:
        """Counts that begin like these, and grow apart."""
        made = copy(self)
        made._ids, made._counts = self._ids.copy(), self._counts.copy()
        made._places = dict(self._places)
        return made

    def add(self, token: int) -> None:
        """Counts one generated token."""
        if token >= self._vocab:
            return
        place = self._places.setdefault(token, self._size)
        if place == self._size:
            if place == len(self._ids):
                self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._ids[place] = token
            self._size += 1
        self._counts[place] += 1


class Constraints:
    """What one request shifts and forbids, at one point of its history.

    Mutated by `advance()` only.
    """

    def __init__(
        self, request: Request, history: list[int], vocab: int, grammar: Progress | None = None
    ) -> None:
        """grammar: where an answer to this request begins, if it has a grammar."""
        params = request.sampling
        self.grammar = grammar
        self.history = history
        self.length = len(request.prompt)
        self.repetition = clamped(params.repetition_penalty, 1 / EXTREME, EXTREME)
        self.frequency = clamped(params.frequency_penalty, -EXTREME, EXTREME)
        self.presence = clamped(params.presence_penalty, -EXTREME, EXTREME)
        self.counts: Counts | None = None
        if self.repetition != 1.0 or self.frequency or self.presence:
            self.counts = Counts(request.prompt if self.repetition != 1.0 else (), vocab)
        bias: dict[int, float] = {}
        for token, value in params.logit_bias:
            bias[token] = bias.get(token, 0.0) + value
        self.bias_ids = _in_vocabulary(bias, vocab)
        values = [clamped(bias[token], -_LARGEST, _LARGEST) for token in self.bias_ids.tolist()]
        self.bias: Values = np.array(values, np.float32)
        self.allowed = (
            _in_vocabulary(params.allowed_token_ids, vocab) if params.allowed_token_ids else None
        )
        self._stops = _in_vocabulary(request.stop_token_ids, vocab)
        self._stops_from = len(request.prompt) + params.min_tokens
        # As in transformers: a bad word that is just a stop token bans nothing.
        words = [w for w in params.bad_words if len(w) > 1 or w[0] not in request.stop_token_ids]
        self._banned = _in_vocabulary((word[0] for word in words if len(word) == 1), vocab)
        self._words: dict[int, list[tuple[list[int], int]]] = {}
        for *prefix, last in words:
            if prefix and last < vocab:
                self._words.setdefault(prefix[-1], []).append((prefix, last))

    def describes(self, history: list[int]) -> bool:
        """Whether `advance()` can go on from here to `history`."""
        return self.history is history and self.length <= len(history)

    def advance(self) -> None:
        """Takes up what was added to the history."""
        if self.counts is not None:
            for token in self.history[self.length :]:
                self.counts.add(token)
        if self.grammar is not None:
            self.grammar.advance(self.history[self.length :])
        self.length = len(self.history)

    def assuming(self, token: int) -> Constraints | None:
        """Those that hold if the token comes next; None if the grammar forbids it.

        What is there now stays as it is.
        """
        ahead = copy(self)
        if self.grammar is not None:
            ahead.grammar = self.grammar.assuming(token)
            if ahead.grammar is None:
                return None
        if self.counts is not None:
            ahead.counts = self.counts.copy()
            ahead.counts.add(token)
        ahead.history, ahead.length = [*self.history, token], self.length + 1
        return ahead

    def banned(self) -> Ids:
        """Tokens [k] that must not come next, by bad words and min_tokens."""
        parts = [self._banned]
        must_end = self.grammar is not None and self.grammar.must_end
        if self.length < self._stops_from and not must_end:
            parts.append(self._stops)
        known = self.history
        completed = [
            last
            for prefix, last in self._words.get(known[-1], ())
            if known[-len(prefix) :] == prefix
        ]
        if completed:
            parts.append(np.array(completed, np.int64))
        return np.concatenate(parts)


def constrain(logits: Tensor, rows: Sequence[Constraints | None]) -> None:
    """Applies each row's constraints to logits [n, vocab] float32, contiguous, in place."""
    vocab, flat = logits.shape[1], logits.view(-1)
    present = [(index * vocab, row) for index, row in enumerate(rows) if row is not None]
    if biased := [(first, row) for first, row in present if len(row.bias_ids)]:
        places = _tensor([row.bias_ids + first for first, row in biased], logits)
        values = _tensor([row.bias for _, row in biased], logits)
        flat[places] = (flat[places] + values).clamp_(max=_LARGEST)
    counted = [(first, row, row.counts) for first, row in present if row.counts is not None]
    if counted:
        places = _tensor([counts.ids + first for first, _, counts in counted], logits)
        values = flat[places]
        penalties = _spread([(row.repetition, counts) for _, row, counts in counted], logits)
        values = torch.where(values < 0, values * penalties, values / penalties)
        generated = _tensor([counts.generated for _, _, counts in counted], logits)
        values -= (
            _spread([(row.frequency, counts) for _, row, counts in counted], logits) * generated
        )
        presences = _spread([(row.presence, counts) for _, row, counts in counted], logits)
        values -= presences * (generated > 0)
        flat[places] = values.clamp_(max=_LARGEST)
    if present:
        banned = _tensor([row.banned() + first for first, row in present], logits)
        flat.index_fill_(0, banned, float("-inf"))
    for index, row in enumerate(rows):
        if row is not None and row.allowed is not None:
            allowed = upload(torch.from_numpy(row.allowed), logits.device)
            values = logits[index, allowed]
            logits[index].fill_(float("-inf"))[allowed] = values
        if row is not None and row.grammar is not None:
            forbidden = upload(torch.from_numpy(row.grammar.forbidden), logits.device)
            logits[index].masked_fill_(forbidden, float("-inf"))


def _in_vocabulary(tokens: Iterable[int], vocab: int) -> Ids:
    """The tokens [k] that the logits have."""
    return np.array([token for token in tokens if 0 <= token < vocab], np.int64)


def _tensor(parts: list[Ids] | list[Values], like: Tensor) -> Tensor:
    """The parts as one vector, on the device of `like`."""
    return upload(torch.from_numpy(np.concatenate(parts)), like.device)


def _spread(rows: list[tuple[float, Counts]], like: Tensor) -> Tensor:
    """Each row's number, once for each of its counted tokens."""
    numbers = np.array([number for number, _ in rows], np.float32)
    sizes = [len(counts.ids) for _, counts in rows]
    return upload(torch.from_numpy(np.repeat(numbers, sizes)), like.device)
