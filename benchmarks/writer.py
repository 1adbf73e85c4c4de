"""Texts of exact length in the tokens of any model, of words drawn from a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks.tokenizer import word_order

_WORD = re.compile(r"[\u0120\u2581]([a-z]{3,})")
_ATTEMPTS = 100


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    def apply_chat_template(
        self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def get_vocab(self) -> dict[str, int]: ...


class Writer:
    """Makes texts of exact length. Mutated by its own methods only: it draws words in order."""

    def __init__(self, tokenizer: Tokenizer, seed: str) -> None:
        self._tokenizer = tokenizer
        found = (_WORD.fullmatch(token) for token in tokenizer.get_vocab())
        words = sorted({match[1] for match in found if match})
        if len(words) < _ATTEMPTS:
            raise ValueError("this tokenizer has too few words that are one token")
        random.Random(seed).shuffle(words)
        self._words = words
        self._next = 0

    def prompt(self, length: int, *, after: Sequence[str] = ()) -> str:
        """A user message that makes a prompt of `length` tokens, starting with words `after`."""
        return " ".join(self._fitted(lambda words: len(self._render(words)), length, after))

    def text(self, length: int) -> str:
        """A text of `length` tokens, without the template."""
        return " ".join(self._fitted(lambda words: len(self._encode(" ".join(words))), length, ()))

    def prefix(self, length: int) -> tuple[str, ...]:
        """Words whose prompts have `length` tokens in common, whatever word comes next."""
        one, other = self._word(), self._word()

        def common(words: Sequence[str]) -> int:
            pairs = zip(self._render([*words, one]), self._render([*words, other]), strict=False)
            return next((index for index, (a, b) in enumerate(pairs) if a != b), 0)

        return tuple(self._fitted(common, length, ()))

    def quoted(self, length: int, draw: random.Random) -> tuple[str, ...]:
        """A word, so that prompts have no beginning in common, and a text to be quoted."""
        order = word_order(self._tokenizer.get_vocab())[:length]
        text = [word[1:] if draw.randrange(16) else self._word() for word in order]
        return (self._word(), *text)

    def _fitted(
        self, measure: Callable[[Sequence[str]], int], length: int, after: Sequence[str]
    ) -> list[str]:
        words = [*after, self._word()]
        for _ in range(_ATTEMPTS):
            missing = length - measure(words)
            if missing == 0:
                return words
            if missing > 0:
                words += [self._word() for _ in range(missing)]
            else:
                # The word after a kept part is redrawn too, in case its own pieces were too many.
                kept = max(len(words) + missing, len(after) + 1) - 1
                words = [*words[:kept], self._word()]
        raise ValueError(f"no text of exactly {length} tokens was found with this tokenizer")

    def _word(self) -> str:
        self._next += 1
        return self._words[self._next % len(self._words)]

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _render(self, words: Sequence[str]) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": " ".join(words)}],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self._encode(text)
