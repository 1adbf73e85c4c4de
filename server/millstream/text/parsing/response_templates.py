"""From a tokenizer's response template to the formats of `call_formats`.

A response template is how a model's maker says how its answers are to be read (transformers'
documentation on response templates; its parser is the reference for the result). Compiled here,
arguments stream while they are written. What cannot be compiled raises `CannotCompile`, and
transformers reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from millstream.text.parsing.call_formats import CallFormat
from millstream.text.parsing.reasoning_formats import ReasoningFormat

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
# A pattern with such an end could match more when more text comes.
_OPEN_END = regex.compile(r"(?:(?<!\\)[+*?}\].$]|\\[a-zA-Z])\)*\Z")
_VALUE = regex.compile(r"\(\?P<value>(?:\.|\[\\s\\S\])\*\?\)")

Spec = Mapping[str, Any]


class CannotCompile(ValueError):
    """The template uses something that only transformers' own parser reads."""


@dataclass(frozen=True, slots=True)
class CompiledTemplate:
    """anchor: pattern that stands, in a prompt, where the answer begins."""

    anchor: str
    reasoning: ReasoningFormat | None
    calls: tuple[CallFormat, ...]
    noise: tuple[str, ...]


def compile_template(spec: Spec) -> CompiledTemplate:
    """The template as formats of ours. Raises CannotCompile."""
    fields: dict[str, Spec] = dict(spec["fields"])
    reasoning = None
    content = fields.pop("content", {})
    _require(not _delimiter(content, "open") and content.get("content", "text") == "text")
    noise = _delimiter(content, "close")
    for name in REASONING_FIELDS:
        if name in fields:
            _require(reasoning is None)
            reasoning = _reasoning(fields.pop(name))
    calls = (_call(fields.pop("tool_calls")),) if "tool_calls" in fields else ()
    _require(not fields)
    return CompiledTemplate(
        anchor=_delimiter(spec, "start_anchor"),
        reasoning=reasoning,
        calls=calls,
        noise=(noise,) if noise else (),
    )


def _require(condition: bool) -> None:  # noqa: FBT001
    if not condition:
        raise CannotCompile("not a response template that can be compiled")


def _delimiter(field: Spec, key: str) -> str:
    """The pattern of a delimiter; empty if the field has none."""
    if pattern := field.get(f"{key}_pattern"):
        pattern = pattern.removeprefix(r"\s*").removesuffix(r"\s*")
        _require(not _OPEN_END.search(pattern))
        return f"(?s:{pattern})"
    literals = field.get(key, [])
    literals = [literals] if isinstance(literals, str) else literals
    _require(not any(a != b and a.startswith(b) for a in literals for b in literals))
    return "|".join(map(regex.escape, literals))


def _reasoning(field: Spec) -> ReasoningFormat:
    opening, closing = _delimiter(field, "open"), _delimiter(field, "close")
    _require(bool(opening and closing) and field.get("content", "text") == "text")
    return ReasoningFormat("template", opening, closing)


def _call(field: Spec) -> CallFormat:
    opening, closing = _delimiter(field, "open"), _delimiter(field, "close")
    function: Any = (field.get("transform") or {}).get("function")
    _require(bool(opening) and not field.get("transform_each"))
    ends = (closing,) if closing else ()
    arguments = dict(field.get("content_args") or {})
    if field.get("content") == "xml-inline":
        _require(bool(ends) and "(?P<name>" in opening)
        _require(function == {"name": "{name}", "arguments": "{content}"})
        before, after = _around_value(arguments)
        return CallFormat(
            opening,
            "parameters",
            ends=ends,
            parameter=before,
            parameter_close=after,
            strip=True,
        )
    _require(field.get("content") == "json" and not arguments)
    opening = rf"(?:{opening})\s*(?=\{{)"
    if function == {"name": "{name}", "arguments": "{content}"}:
        _require("(?P<name>" in opening)
        return CallFormat(opening, "arguments", ends=ends)
    name_key, arguments_key = "name", "arguments"
    if function != "{content}":
        _require(isinstance(function, Mapping) and set(function) == {"name", "arguments"})
        name_key, arguments_key = (
            _content_key(function["name"]),
            _content_key(function["arguments"]),
        )
    return CallFormat(
        opening, "call", ends=ends, name_key=name_key, arguments_keys=(arguments_key,)
    )


def _content_key(placeholder: str) -> str:
    """Which key of the call a transform takes."""
    match = regex.fullmatch(r"\{content\.(\w+)\}", placeholder)
    if match is None:
        raise CannotCompile(f"the transform {placeholder!r} takes no key of the content")
    return match[1]


def _around_value(arguments: Spec) -> tuple[str, str]:
    """The patterns before and after a value, of the pattern for a whole argument."""
    _require(set(arguments) == {"tag_pattern"})
    parts = _VALUE.split(arguments["tag_pattern"])
    _require(len(parts) == 2 and parts[0].endswith(r"\s*") and parts[1].startswith(r"\s*"))
    before, after = parts[0].removesuffix(r"\s*"), parts[1].removeprefix(r"\s*")
    _require("(?P<key>" in before and not any(map(_OPEN_END.search, (before, after))))
    return f"(?s:{before})", f"(?s:{after})"
