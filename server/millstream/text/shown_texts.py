"""Whether what a client said is in the prompt, so that no template drops it without a word.

Rules: templates trim, escape, move and mark texts, and take out words that steer them; that is no
loss. Thoughts of earlier turns are left out on purpose, so nobody looks for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import regex

from millstream.errors import InvalidRequest
from millstream.text.call_arguments import read_arguments, strings_within
from millstream.text.message_shapes import Message, arguments_path, texts_of
from millstream.text.parsing.reasoning_formats import REASONING_FORMATS

_THOUGHT_ENDS = regex.compile("|".join(form.close for form in REASONING_FORMATS))


class ShownTexts:
    """Looks for texts in one prompt, in the order in which they were said.

    source: of the template; a sign that stands in it, as "/no_think", steers it.
    """

    def __init__(self, prompt: str, *, source: str) -> None:
        self._prompt = prompt
        self._source = source
        self._position = 0

    def has(self, text: str) -> bool:
        """Whether the prompt has the text, whole or in words, written out or escaped."""
        text = text.strip()
        if not text:
            return True
        for written in _writings(text):
            if self._finds(written):
                return True
        words = [word for word in text.split() if word.isalnum() or word not in self._source]
        return any(self._has_words(words, start) for start in {self._position, 0})

    def _finds(self, written: str) -> bool:
        place = self._prompt.find(written, self._position)
        if place >= 0:
            self._position = place + len(written)
            return True
        # A template may have moved it to the front, as a system's text.
        return self._prompt.find(written, 0, self._position) >= 0

    def _has_words(self, words: Sequence[str], position: int) -> bool:
        for word in words:
            ends = [
                place + len(written)
                for written in _writings(word)
                if (place := self._prompt.find(written, position)) >= 0
            ]
            if not ends:
                return False
            position = min(ends)
        return True


def check_shown(
    messages: Sequence[Message], prompt: str, *, source: str, beside_calls: bool
) -> None:
    """Raises InvalidRequest that names the first text of the messages that is not in the prompt.

    beside_calls: whether to look for text that stands beside calls.
    """
    shown = ShownTexts(prompt, source=source)
    for path, text in _said(messages, beside_calls=beside_calls):
        if not shown.has(text):
            raise InvalidRequest(
                f"{path}: the model's chat template leaves this text out of the prompt", param=path
            )


def _said(messages: Sequence[Message], *, beside_calls: bool) -> Iterator[tuple[str, str]]:
    """What has to be in the prompt, with its path."""
    for place, message in enumerate(messages):
        calls = message.get("tool_calls") or ()
        texts = texts_of(message.get("content"))
        if message.get("role") == "assistant":
            texts = [_THOUGHT_ENDS.split(text)[-1] for text in texts]
        if beside_calls or not calls:
            for text in texts:
                yield f"messages[{place}].content", text
        for index, call in enumerate(calls):
            yield from _called(call, place=place, index=index)


def _called(call: Any, *, place: int, index: int) -> Iterator[tuple[str, str]]:
    function = call.get("function") or call
    yield f"messages[{place}].tool_calls[{index}].function.name", str(function.get("name", ""))
    path = arguments_path(place, index)
    for text in strings_within(read_arguments(function.get("arguments"), field=path)):
        yield path, text


def _writings(text: str) -> Iterator[str]:
    """A text as it is, and as it stands within JSON or Python."""
    yield text
    for written in (json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]):
        if written != text:
            yield written
    if (python := repr(text)[1:-1]) != text:
        yield python
