"""Calls written with tags around each argument: their JSON is built while they arrive.

Rules: a string is delivered as it is written, any other value when it is complete, because only
then its type is certain. Types come from the tool's schema; without one a value is a string. Text
between the tags that belongs to no argument is content.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import regex

from millstream.text.parsing.call_formats import CallFormat
from millstream.text.parsing.call_reader import CallWriter, Outcome
from millstream.text.parsing.scanning import compiled, scan
from millstream.text.parsing.tool_schemas import Tools, as_json, is_text


class TaggedCallReader:
    """Reads one call. stray: takes text that is no part of it. is_valid: values that are no
    strings are JSON, in whose strings a closing tag may stand."""

    def __init__(
        self,
        call_format: CallFormat,
        name: str,
        *,
        writer: CallWriter,
        tools: Tools,
        stray: Callable[[str], None],
        is_valid: bool = False,
    ) -> None:
        self._format = call_format
        self._name = tools.named(name, is_marked=True)
        self._writer = writer
        self._tools = tools
        self._stray = stray
        self._is_valid = is_valid
        self._num_values = 0
        self._types: tuple[str, ...] | None = None  # of the value being read
        self._is_trimmed = False
        self._is_stray = False

    def read(self, text: str, *, is_last: bool) -> tuple[int, Outcome]:
        if self._name is None:
            return 0, Outcome.BROKEN
        if not self._writer.has_started:
            self._writer.start(self._name)
            self._writer.write("{")
        rest = text
        while True:
            before = rest
            is_between = self._types is None
            step = self._between if is_between else self._value
            rest, is_done = step(rest, is_last=is_last)
            if is_done:
                return len(text) - len(rest), Outcome.DONE
            if rest == before or not rest:
                return len(text) - len(rest), Outcome.MORE

    def _between(self, text: str, *, is_last: bool) -> tuple[str, bool]:
        """Reads up to the next value, or the end of the call. Returns the rest of the text."""
        patterns = (self._format.parameter, self._format.ends[0])
        place, match, certain = scan(text, patterns, is_last=is_last)
        if stray := text[:certain] if self._is_stray else text[:certain].lstrip():
            self._is_stray = True
            self._stray(stray)
        if match is None:
            return text[certain:], False
        self._is_stray = False
        if place == 1:
            self._writer.write("}")
            return text[match.end() :], True
        key = match["key"]
        self._types = self._tools.types(self._name or "", key)
        self._is_trimmed = False
        comma = ", " if self._num_values else ""
        quote = '"' if is_text(self._types) else ""
        self._writer.write(f"{comma}{json.dumps(key, ensure_ascii=False)}: {quote}")
        self._num_values += 1
        return text[match.end() :], False

    def _value(self, text: str, *, is_last: bool) -> tuple[str, bool]:
        """Reads a value, or as much of it as is certain. Returns the rest of the text."""
        assert self._types is not None
        is_string = is_text(self._types)
        if not self._is_trimmed and text:
            text = text.lstrip() if self._format.strip else text.removeprefix("\n")
            self._is_trimmed = bool(text) or not self._format.strip
        if not text:
            return text, False
        # Only where white space begins: a long run of it is not searched from each of its places.
        space = r"(?<!\s)\s*" if self._format.strip else r"\n?"
        close = space + self._format.parameter_close
        if self._is_valid and "string" not in self._types and not is_string:
            match = _end_of_json(text, close)
            certain = match.start() if match else len(text)
        else:
            _, match, certain = scan(text, (close,), is_last=is_last)
        if match is None and not is_string:
            if not is_last:
                return text, False
            self._writer.write(text)
        elif is_string:
            self._writer.write(json.dumps(text[:certain], ensure_ascii=False)[1:-1])
        else:
            self._writer.write(as_json(text[:certain], self._types))
        if match is None:
            return text[certain:], False
        self._writer.write('"' if is_string else "")
        self._types = None
        return text[match.end() :], False


def _end_of_json(text: str, close: str) -> regex.Match[str] | None:
    """The tag that closes a JSON value, which may contain it in its strings."""
    for match in compiled(close).finditer(text):
        try:
            json.loads(text[: match.start()])
        except ValueError:
            continue
        return match
    return None
