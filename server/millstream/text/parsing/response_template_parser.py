"""Answers in a format that only transformers' own response parser reads.

Rules: the text goes through it one character at a time, so that nothing depends on cuts. A call is
delivered whole, when it is complete. One that cannot be read is content, without its markers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from millstream.text.parsing.output import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
    merge,
)
from millstream.text.parsing.response_templates import REASONING_FIELDS
from millstream.text.parsing.scanning import AnswerText
from millstream.text.parsing.tool_schemas import Tools

Event = Mapping[str, Any]

_UNREADABLE = (ValueError, KeyError, RecursionError)


class ResponseParser(Protocol):
    """transformers.utils.chat_parsing.ResponseParser."""

    def feed(self, text: str) -> Sequence[Event]: ...

    def finalize(self) -> tuple[Any, Sequence[Event]]: ...


class ResponseParsers(Protocol):
    """What this needs of a transformers tokenizer that has a response template."""

    response_template: Any

    def get_response_parser(
        self,
        response_template: dict[str, Any],
        *,
        prefix: str,
        tools: Any,
    ) -> ResponseParser: ...


class TemplateParser:
    """Parses one answer."""

    def __init__(
        self, parsers: ResponseParsers, *, prompt: str, tools: Sequence[Mapping[str, Any]]
    ) -> None:
        self._parsers = parsers
        self._tools = [dict(tool) for tool in tools]
        self._known = Tools.of(tools)
        self._deltas: list[Delta] = []
        self._content = AnswerText(lambda text: self._deltas.append(Content(text)))
        self._reasoning = AnswerText(lambda text: self._deltas.append(Reasoning(text)))
        self._num_calls = 0
        self._call = ""  # the text of the open call
        self._template = _without_leading_space(parsers.response_template)
        self._is_marked = _has_marker(self._template["fields"].get("tool_calls", {}))
        # A closing pattern, unlike a closing literal, is recognised one character late.
        self._is_late = "close_pattern" in self._template["fields"].get("tool_calls", {})
        self._parser = self._open(prompt)

    def push(self, text: str) -> list[Delta]:
        for character in text:
            try:
                self._take(self._parser.feed(character))
            except _UNREADABLE:
                self._break()
                if self._is_late:
                    self._take(self._parser.feed(character))
        return self._taken()

    def push_plain(self, text: str) -> Delta | None:
        """Intentional: always None. What transformers' parser holds back is not known."""
        return None

    def finish(self) -> list[Delta]:
        try:
            self._take(self._parser.finalize()[1])
        except _UNREADABLE:
            self._break()
        self._content.finish()
        self._reasoning.finish()
        return self._taken()

    def _open(self, prompt: str) -> ResponseParser:
        return self._parsers.get_response_parser(
            self._template, prefix=prompt, tools=self._tools or None
        )

    def _taken(self) -> list[Delta]:
        deltas, self._deltas = merge(self._deltas), []
        return deltas

    def _break(self) -> None:
        """The parser has failed at the end of a call, and is of no further use."""
        self._content.write(self._call)
        self._call = ""
        self._parser = self._open("")

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            is_call = event["field"] == "tool_calls"
            if event["type"] == "region_chunk":
                if is_call:
                    self._call += event["text"]
                elif event["field"] in REASONING_FIELDS:
                    self._reasoning.write(event["text"])
                else:
                    self._content.write(event["text"])
                continue
            if is_call and event["type"] == "region_close":
                self._deliver(event["value"])
            self._content.mark()
            self._reasoning.mark()

    def _deliver(self, value: Any) -> None:
        calls = value if isinstance(value, list) else [value]
        functions = [call.get("function", {}) for call in calls if isinstance(call, Mapping)]
        named = [self._known.named(f.get("name"), is_marked=self._is_marked) for f in functions]
        names = [name for name in named if name is not None]
        if not names or len(names) < len(functions):
            self._content.write(self._call)
            names = []
        for name, function in zip(names, functions, strict=False):
            arguments = function.get("arguments") or {}
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            self._deltas.append(ToolCallStart(self._num_calls, name))
            self._deltas.append(ToolCallArguments(self._num_calls, arguments))
            self._num_calls += 1
        self._call = ""


def _has_marker(field: Mapping[str, Any]) -> bool:
    """Whether a word of its own opens a call, so that no JSON is taken for one."""
    opening = str(field.get("open") or field.get("open_pattern") or "")
    return '"' not in opening and re.search(r"[^\W\d]{3}", opening) is not None


def _without_leading_space(template: Mapping[str, Any]) -> dict[str, Any]:
    """The template with markers that begin at their first letter.

    White space before them is dropped here anyway, and a pattern that begins with it takes time
    with the square of each run of white space; some broken answers are nothing else.
    """
    return {
        **template,
        "fields": {
            name: {
                key: value.removeprefix(r"\s*") if key.endswith("_pattern") else value
                for key, value in field.items()
            }
            for name, field in template["fields"].items()
        },
    }
