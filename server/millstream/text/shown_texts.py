"""Whether what a client said is in the prompt, so that no template drops it without a word.

Rules: templates trim, escape, move and mark texts, and take out words that steer them; that is no
loss. A template may shorten a text if the model can see that: it writes `OMISSION` between what it
keeps of the beginning and of the end. Thoughts of earlier turns are left out on purpose, so nobody
looks for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

import regex

from millstream.errors import InvalidRequest
from millstream.text.call_arguments import read_arguments, strings_within
from millstream.text.message_moves import Message
from millstream.text.message_shapes import arguments_path, texts_of
from millstream.text.parsing.reasoning_formats import REASONING_FORMATS

OMISSION = "[...]"
"""Stands in the prompt for the middle of a text, if the template's source has it, too."""

_EDGE = 24  # characters by which the beginning and the end of a shortened text are found
_THOUGHT_ENDS = regex.compile("|".join(form.close for form in REASONING_FORMATS))


# How a text stands in a prompt: as it is, or as within JSON or Python.
_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1],
    lambda text: repr(text)[1:-1],
)


class ShownTexts:
    """Looks for texts in one prompt, where the next of their kind would stand.

    source: of the template; a sign that stands in it, as "/no_think", steers it.
    """

    def __init__(self, prompt: str, *, source: str) -> None:
        self._prompt = prompt
        self._source = source
        self._positions: dict[str, int] = {}
        self._escapes: dict[str, list[Callable[[str], str]]] = {}

    def has(self, text: str, *, kind: str) -> bool:
        """Whether the prompt has the text, whole or in words, written out or escaped.

        kind: whose it is. Texts of a kind are in order and escaped alike, but a template may put a
        kind elsewhere, as the system's in front.
        """
        text = text.strip()
        if not text:
            return True
        position = self._positions.get(kind, 0)
        if (end := self._end_of(text, position, kind)) is not None:
            self._positions[kind] = end
            return True
        if position and self._end_of(text, 0, kind) is not None:
            return True
        words = [word for word in text.split() if word.isalnum() or word not in self._source]
        return any(self._has_words(words, start, kind) for start in {position, 0})

    def has_shortened(self, text: str, *, kind: str) -> bool:
        """Whether the prompt has the text's beginning and its end, and between them `OMISSION`."""
        text, prompt = text.strip(), self._prompt
        if OMISSION not in self._source or len(text) <= 2 * _EDGE:
            return False
        first = text[:_EDGE]
        begin = prompt.find(first, self._positions.get(kind, 0))
        begin = begin if begin >= 0 else prompt.find(first)
        if begin < 0:
            return False
        same = map(eq, text, prompt[begin : begin + len(text)])
        kept = begin + len(list(takewhile(bool, same)))
        sign = prompt.find(OMISSION, kept - len(OMISSION), kept + 2 * len(OMISSION))
        end = prompt.find(text[-_EDGE:], sign) + _EDGE
        if sign < 0 or end < sign:
            return False
        self._positions[kind] = end
        return text.endswith(prompt[sign + len(OMISSION) : end].lstrip())

    def _end_of(self, text: str, start: int, kind: str) -> int | None:
        """The end of the text in the prompt, as it is or escaped; None if it is not there."""
        escapes = self._escapes.setdefault(kind, list(_ESCAPES))
        tried = set()
        for escape in escapes:
            written = escape(text)
            if written in tried:
                continue
            tried.add(written)
            if (place := self._prompt.find(written, start)) >= 0:
                if len(tried) > 1:
                    # A search for what is not there goes through the whole prompt.
                    escapes.remove(escape)
                    escapes.insert(0, escape)
                return place + len(written)
        return None

    def _has_words(self, words: Sequence[str], position: int, kind: str) -> bool:
        for word in words:
            end = self._end_of(word, position, kind)
            if end is None:
                return False
            position = end
        return True


def check_shown(
    messages: Sequence[Message], prompt: str, *, source: str, beside_calls: bool
) -> None:
    """Raises InvalidRequest that names the first text of the messages that is not in the prompt.

    beside_calls: whether to look for text that stands beside calls.
    """
    shown = ShownTexts(prompt, source=source)
    for place, message in enumerate(messages):
        role, calls = str(message.get("role")), message.get("tool_calls") or ()
        if beside_calls or not calls:
            texts = _texts_said(message)
            if not all(shown.has(text, kind=role) for text in texts) and not shown.has_shortened(
                "\n".join(texts), kind=role
            ):
                raise _left_out(f"messages[{place}].content")
        for index, call in enumerate(calls):
            for path, text in _called(call, place=place, index=index):
                if not shown.has(text, kind="call"):
                    raise _left_out(path)


def _texts_said(message: Message) -> list[str]:
    texts = texts_of(message.get("content"))
    if message.get("role") == "assistant":
        return [_THOUGHT_ENDS.split(text)[-1] for text in texts]
    return texts


def _left_out(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path}: the model's chat template leaves this text out of the prompt", param=path
    )


def _called(call: Any, *, place: int, index: int) -> Iterator[tuple[str, str]]:
    function = call.get("function") or call
    yield f"messages[{place}].tool_calls[{index}].function.name", str(function.get("name", ""))
    path = arguments_path(place, index)
    for text in strings_within(read_arguments(function.get("arguments"), field=path)):
        yield path, text
