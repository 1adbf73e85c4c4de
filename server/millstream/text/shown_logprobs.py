"""Log probabilities beside the text they belong to.

Rules:
1. What is reported, joined, is the answer's text; tokens that make no text (the end of the turn,
   skipped special tokens) are not reported, unless every token is asked for.
2. Nothing is reported before its text is shown, so a stop string does not leak here either. The
   token in which a stop string begins is reported whole, as the token it is, if any of its text
   was shown. For who wants every token, those of a stop string are told as well when the answer
   is over, each with what of its text was shown.
3. A token that is a part of a character has no text; the one that completes it has all of it.
   `raw` are the token's own bytes in every case.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from millstream.core.request import TokenLogprob
from millstream.text.vocabulary import Vocabulary


class TextLogprob(NamedTuple):
    """A token of the answer: the text it adds, its bytes, its log probability."""

    text: str
    raw: bytes
    score: TokenLogprob


class LogprobTrack:
    """Keeps the scores of one answer until their text is shown. Offsets are in characters.

    every_token: tokens that make no text are reported too, without one. stop_tokens: so are those
    of a stop string.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        skip_special_tokens: bool,
        every_token: bool = False,
        stop_tokens: bool = False,
    ) -> None:
        self._vocabulary = vocabulary
        self._skip_special_tokens = skip_special_tokens
        self._every_token = every_token
        self._stop_tokens = stop_tokens
        self._parts: list[TextLogprob] = []
        self._pending_scores: deque[tuple[int, int, TextLogprob]] = deque()
        self._num_known = 0

    def push(self, score: TokenLogprob, text: str) -> None:
        """The next token, and the text it completed."""
        if self._skip_special_tokens and self._vocabulary.is_special(score.token_id):
            if text:  # of the parts before it
                self.complete(text)
            self.push_silent(score)
            return
        if text and not self._parts:
            self._hold([TextLogprob(text, text.encode(), score)], len(text))
            return
        raw = self._vocabulary[score.token_id].raw
        self._parts.append(TextLogprob("", raw, score))
        if text:
            self.complete(text)

    def push_silent(self, score: TokenLogprob) -> None:
        """The next token, which is no text."""
        if not self._every_token:
            return
        entry = TextLogprob("", self._vocabulary[score.token_id].raw, score)
        if self._parts:
            self._parts.append(entry)
        else:
            self._hold([entry], 0)

    def complete(self, text: str) -> None:
        """The parts of a character make this text, none if it was cut off."""
        if self._parts:
            self._parts[-1] = self._parts[-1]._replace(text=text)
        self._hold(self._parts, len(text))
        self._parts = []

    def shown(self, num_shown: int, *, is_last: bool) -> tuple[TextLogprob, ...]:
        """The tokens to report when so many characters of the answer are shown in all.

        is_last: no more will be shown; what begins at or after the end is dropped.
        """
        ready: list[TextLogprob] = []
        while self._pending_scores:
            start, end, entry = self._pending_scores[0]
            if is_last and self._stop_tokens:
                entry = entry._replace(text=entry.text[: max(num_shown - start, 0)])
            elif end > num_shown and not (is_last and start < num_shown):
                break
            self._pending_scores.popleft()
            ready.append(entry)
        return tuple(ready)

    def _hold(self, entries: list[TextLogprob], num_characters: int) -> None:
        start, self._num_known = self._num_known, self._num_known + num_characters
        self._pending_scores += ((start, self._num_known, entry) for entry in entries)
