"""Is what `--batch-invariant` promises true for this model on this machine? A check before serving.

One text is computed alone, in one chunk, and some of its tokens again one by one. Then all in
other chunks beside another text, and the same tokens one by one beside it. Every logit, and every
key and value in the cache, must be the same to the bit. That the values are right is
shown by the logits without the flag, which were compared with the model's own before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.errors import StartupError
from millstream.model.paging.kv_cache import KVCache
from millstream.model.tolerance import INVARIANT_LOGITS, logits_difference

Logits = Callable[[Plan], Tensor]
"""A step's logits, one row for each chunk that is sampled."""

_LENGTH, _BESIDE = 72, 23  # across a change of the number of keys; odd, so that tiles are not full


@dataclass(frozen=True, slots=True)
class _Text:
    """Tokens, and the blocks of the cache that they are computed into."""

    number: int
    ids: list[int]
    blocks: list[int]

    def chunk(self, start: int, end: int) -> Chunk:
        """The tokens from `start` to `end`, or to the end of the text."""
        request = Request(
            id=self.number, prompt=tuple(self.ids), sampling=SamplingParams(), max_tokens=1
        )
        end = min(end, len(self.ids))
        return Chunk(request, self.ids[start:end], start, self.blocks, self.ids, is_last=True)


class InvarianceCheck:
    """Runs of two texts over the first blocks of a cache, which are not in use yet."""

    def __init__(self, cache: KVCache, *, vocab_size: int, max_context: int) -> None:
        size = cache.block_size
        half = max(cache.num_blocks // 2, 1)
        length = min(_LENGTH, max_context, half * size)
        count = -(-length // size)
        rest = min(_BESIDE, max_context, (cache.num_blocks - count) * size)
        blocks = list(range(count, count + -(-rest // size)))
        self._cache = cache
        self._text = _Text(0, _ids(length, 37, vocab_size), list(range(count))[::-1])
        self._other = _Text(1, _ids(rest, 53, vocab_size), blocks)

    def sample(self, logits: Logits) -> Tensor:
        """Logits [1, vocab] of the last token of one text, computed in one chunk."""
        return logits(Plan((self._text.chunk(0, len(self._text.ids)),)))

    def run(self, logits: Logits, default: Tensor) -> None:
        """Raises StartupError if a bit depends on chunks or on what is computed beside them.

        logits: with `--batch-invariant`. default: what `sample()` gave without it, [1, vocab].
        """
        difference = logits_difference(self.sample(logits).float(), default.float())
        if not difference <= INVARIANT_LOGITS:
            raise StartupError(
                "--batch-invariant: the logits of this model differ from those without the flag by "
                f"{difference:.1%} of their spread, which is wrong; serve it without"
            )
        text, length = self._text, len(self._text.ids)
        stored = _content(self._cache, text)
        ends = sorted({1, 5, length * 2 // 3, 63, 64, 65, length} & set(range(1, length + 1)))
        expected = {end: logits(Plan((text.chunk(end - 1, end),)))[0] for end in ends}
        _compare(self._cache, text, stored)
        for run in (_in_chunks, _decoded):
            for end, row in run(logits, text, self._other, ends):
                if not torch.equal(row, expected[end]):
                    raise _refusal("logits", end - 1)
            _compare(self._cache, text, stored)


Rows = list[tuple[int, Tensor]]
"""Logits [vocab], each with the number of tokens up to its own."""


def _in_chunks(logits: Logits, text: _Text, other: _Text, ends: list[int]) -> Rows:
    """The text in chunks, each beside a part of the other text."""
    results: Rows = []
    cuts = [0, *ends]
    rest, count = len(other.ids), len(ends)
    for index, (start, end) in enumerate(pairwise(cuts)):
        beside = other.chunk(rest * index // count, rest * (index + 1) // count)
        chunks = [chunk for chunk in (text.chunk(start, end), beside) if chunk.tokens]
        # Single tokens are decode rows and go first.
        chunks.sort(key=lambda chunk: len(chunk.tokens) > 1)
        rows = logits(Plan(tuple(chunks)))
        row = [chunk.request.id for chunk in chunks].index(text.number)
        results.append((end, rows[row]))
    return results


def _decoded(logits: Logits, text: _Text, other: _Text, ends: list[int]) -> Rows:
    """Single tokens, each beside a token of the other text; all were computed before."""
    results: Rows = []
    for index, end in enumerate(ends):
        chunks = [text.chunk(end - 1, end), other.chunk(index, index + 1)]
        chunks = [chunk for chunk in chunks if chunk.tokens]
        results.append((end, logits(Plan(tuple(chunks)))[0]))
    return results


def _content(cache: KVCache, text: _Text) -> list[Tensor]:
    """Keys and values of the text's tokens in every layer: [1, heads, T, d] each."""
    blocks = torch.tensor([text.blocks])
    return [
        tensor[:, :, : len(text.ids)].clone()
        for layer in cache.keys
        for tensor in cache.read(layer, blocks)
    ]


def _compare(cache: KVCache, text: _Text, expected: list[Tensor]) -> None:
    """Raises StartupError if the text's keys and values are not, to the bit, what was expected."""
    for actual, wanted in zip(_content(cache, text), expected, strict=True):
        if not torch.equal(actual, wanted):
            same = (actual == wanted).all(dim=3).all(dim=1)[0]
            raise _refusal("keys or values", int((~same).nonzero()[0]))


def _ids(length: int, step: int, vocab_size: int) -> list[int]:
    return [(index + 1) * step % vocab_size for index in range(length)]


def _refusal(what: str, position: int) -> StartupError:
    return StartupError(
        f"--batch-invariant: the {what} of this model depend on what is computed beside it (at "
        f"position {position} of the check), so the flag's promise cannot be kept; serve it without"
    )
