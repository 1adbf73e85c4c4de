"""Calls written in JSON: the arguments pass through as the model writes them.

Rules:
1. A character of the arguments is delivered as soon as the name is known; nothing past their end.
2. Only the structure is checked. Control characters within strings, which JSON forbids and models
   write, are escaped; everything else is the model's own text.
3. An object that has no name is no call; nor is one whose name means no tool, where no marker says
   that it is meant as one.

A reader is a generator that is sent one character at a time, so that the grammar of JSON is written
as functions that call each other while the text arrives in any pieces. A function returns when its
value is complete; one that had to read a character too far gives it back as its result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

from millstream.text.parsing.call_formats import CallFormat
from millstream.text.parsing.call_reader import CallWriter, Outcome
from millstream.text.parsing.tool_schemas import Tools

# A reader is sent one character after the other and returns when its value is complete.
Reader = Generator[None, str, None]
CharReader = Generator[None, str, str]

_SPACE = frozenset(" \t\r\n")
_EXTRA_KEYS = frozenset({"type", "id"})


class _Malformed(Exception):
    """What was read is no call, or no longer one."""


class JsonCallReader:
    """Reads one call; `name` is given where only the arguments are JSON."""

    def __init__(
        self, call_format: CallFormat, name: str | None, *, writer: CallWriter, tools: Tools
    ) -> None:
        self._format = call_format
        self._name = name
        self._writer = writer
        self._tools = tools
        self._pieces: list[str] = []
        self._has_arguments = False
        self._is_complete = False
        self._reader = self._call() if name is None else self._arguments()
        next(self._reader)

    def read(self, text: str, *, is_last: bool) -> tuple[int, Outcome]:
        used = 0
        try:
            for character in text:
                self._reader.send(character)
                used += 1
        except StopIteration:
            return used + 1, Outcome.DONE
        except _Malformed:
            is_call = self._is_complete and self._writer.has_started
            return used, Outcome.DONE if is_call else Outcome.BROKEN
        finally:
            if self._writer.has_started:
                self._writer.write("".join(self._pieces))
                self._pieces.clear()
        return used, Outcome.MORE

    def _arguments(self) -> Reader:
        first = yield from _next()
        if first != "{":
            raise _Malformed
        yield from self._object(first)

    def _call(self) -> Reader:
        if (yield from _next()) != "{":
            raise _Malformed
        character = yield from _next()
        while character != "}":
            if character != '"':
                raise _Malformed
            key = yield from _key()
            if (yield from _next()) != ":":
                raise _Malformed
            character = yield from self._member(key, (yield from _next()))
            if character == ",":
                character = yield from _next()
            elif character != "}":
                raise _Malformed
        if not self._has_arguments and not self._format.needs_arguments:
            self._take("{}")
        if not self._writer.has_started:
            raise _Malformed

    def _member(self, key: str, first: str) -> CharReader:
        """Reads a value that begins with `first`; returns the character after it."""
        is_arguments = key in self._format.arguments_keys and not self._has_arguments
        is_name = key == self._format.name_key and self._name is None
        if is_arguments and first == "{":
            yield from self._object(first)
            return (yield from _next())
        if self._format.needs_arguments and not (is_arguments or is_name or key in _EXTRA_KEYS):
            raise _Malformed
        raw: list[str] = []
        after = yield from _value(first, raw.append)
        value = _decoded("".join(raw)) if is_name or is_arguments else None
        if is_name:
            if not isinstance(value, str):
                raise _Malformed
            self._name = value
            self._start()
        elif is_arguments:
            # Some models write the arguments as OpenAI's API does: JSON within a string.
            text = "{}" if value is None else value
            if not isinstance(text, str) or not isinstance(_decoded(text), dict):
                raise _Malformed
            self._take(text)
        return after

    def _object(self, first: str) -> Reader:
        self._has_arguments = True
        self._start()
        yield from _container(first, self._pieces.append)
        self._is_complete = True

    def _take(self, arguments: str) -> None:
        self._has_arguments = self._is_complete = True
        self._pieces.append(arguments)
        self._start()

    def _start(self) -> None:
        """Starts the call if both its name and its arguments have been seen."""
        if self._name is not None and self._has_arguments and not self._writer.has_started:
            name = self._tools.named(self._name, is_marked=not self._format.at_start)
            if name is None:
                raise _Malformed
            self._writer.start(name)


def _decoded(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _Malformed from error


def _next() -> CharReader:
    """The next character that is no white space."""
    while (character := (yield)) in _SPACE:
        pass
    return character


def _key() -> CharReader:
    raw = ['"']
    yield from _string(raw.append)
    key: str = _decoded("".join(raw))
    return key


def _value(first: str, out: Callable[[str], None]) -> CharReader:
    """Reads any value; returns the character after it that is no white space."""
    if first == '"':
        out(first)
        yield from _string(out)
    elif first in "{[":
        yield from _container(first, out)
    else:
        character = first
        while _is_scalar(character):
            out(character)
            character = yield
        return character if character not in _SPACE else (yield from _next())
    return (yield from _next())


def _container(first: str, out: Callable[[str], None]) -> Reader:
    out(first)
    depth = 1
    while depth:
        character = yield
        if character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        elif not (character in '",:' or character in _SPACE or _is_scalar(character)):
            raise _Malformed
        out(character)
        if character == '"':
            yield from _string(out)


def _string(out: Callable[[str], None]) -> Reader:
    """Reads a string after its opening quotation mark."""
    while True:
        character = yield
        out(_allowed(character))
        if character == "\\":
            out(_allowed((yield)))
        elif character == '"':
            return


def _is_scalar(character: str) -> bool:
    """Whether a number or a word has this character; among them are words that only Python has."""
    return character.isalnum() or character in "+-._"


def _allowed(character: str) -> str:
    return json.dumps(character)[1:-1] if character < " " else character
