"""What a parser delivers, and the whole answer that the deltas add up to.

Rule: a whole answer is made by joining deltas, never by a second parser; streamed and unstreamed
answers are equal by construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """The next piece of what the model says to the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins. Calls are numbered from 0; a call's arguments follow its start."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """The next piece of a call's arguments, a JSON object as text."""

    index: int
    text: str


Delta = Reasoning | Content | ToolCallStart | ToolCallArguments


class OutputParser(Protocol):
    """Parses one answer. `push` its text as it comes, in any pieces; `finish` once, at the end."""

    def push(self, text: str) -> list[Delta]: ...

    def push_plain(self, text: str) -> Delta | None:
        """What `push` would give, if all of this text, which is not empty, surely is one thing and
        nothing is held back; else None, and nothing has been read."""
        ...

    def finish(self) -> list[Delta]: ...


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A complete tool call. arguments: a JSON object as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A complete answer, taken apart."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ParsedCall, ...] = ()


def join(deltas: Iterable[Delta]) -> ParsedAnswer:
    """The answer that these deltas, all of one answer, add up to."""
    content, reasoning, names, arguments = "", "", list[str](), list[str]()
    for delta in deltas:
        match delta:
            case Content(text):
                content += text
            case Reasoning(text):
                reasoning += text
            case ToolCallStart(_, name):
                names.append(name)
                arguments.append("")
            case ToolCallArguments(index, text):
                arguments[index] += text
    return ParsedAnswer(content, reasoning, tuple(map(ParsedCall, names, arguments)))


def parse_whole(parser: OutputParser, text: str) -> ParsedAnswer:
    """Parses an answer that is already complete."""
    return join([*parser.push(text), *parser.finish()])


def merge(deltas: Iterable[Delta]) -> list[Delta]:
    """These deltas, with neighbours of one kind made one and empty ones left out."""
    merged: list[Delta] = []
    for delta in deltas:
        last = merged[-1] if merged else None
        match last, delta:
            case Content(before), Content(text):
                merged[-1] = Content(before + text)
            case Reasoning(before), Reasoning(text):
                merged[-1] = Reasoning(before + text)
            case ToolCallArguments(index, before), ToolCallArguments(_, text):
                merged[-1] = ToolCallArguments(index, before + text)
            case _, (Content("") | Reasoning("") | ToolCallArguments(_, "")):
                pass
            case _:
                merged.append(delta)
    return merged
