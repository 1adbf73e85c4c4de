"""The grammar of an answer that calls tools, in the format in which its model writes calls.

Rules:
1. Every text of the grammar is read by the parser of its format as calls whose arguments their
   schemas allow; nothing else in it is a call.
2. Where the calls are free, text comes before them and cannot contain what begins a call; after the
   last call the answer ends. A free answer without a call is any text, or text of a form.
3. A marker that is one token of the vocabulary is written as that token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from millstream.text.grammars.answer_formats import GrammarError, json_grammar
from millstream.text.grammars.tagged_values import CannotWrite, check_object, tagged_text
from millstream.text.parsing.call_formats import CallWriting, TaggedValues

MAX_CALLS = 32
"""Calls in one forced answer: a weak model that must call one tool might call for ever."""

MAX_CHARACTERS = 262_144
"""Of the schemas of all tools together."""

_MAX_MESSAGES = 8
# What says more about an object than its properties, or says it already.
_OPENS = frozenset(
    [
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
    ]
)


@dataclass(frozen=True, slots=True)
class CallableTool:
    """schema: of its arguments, as `arguments_schema()` makes it."""

    name: str
    schema: Mapping[str, Any]


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a call's arguments: an object, without arguments that the tool does not have.

    Raises GrammarError if the parameters cannot be an object.
    """
    if parameters is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    kinds = parameters.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise GrammarError("the arguments of a call are an object")
    schema = {**parameters, "type": "object"}
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return schema
    if _OPENS.isdisjoint(schema) and all(name in properties for name in required):
        schema["additionalProperties"] = False
    return schema


def calls_grammar(
    writing: CallWriting,
    tools: Sequence[CallableTool],
    tokens: Mapping[str, int],
    *,
    is_forced: bool,
    max_calls: int = MAX_CALLS,
    strips: bool = False,
    answer: str | None = None,
) -> str:
    """tokens: those of the vocabulary that stand for a text of their own. is_forced: whether there
    must be a call. strips: whether the reader drops the white space around tagged values. answer:
    the grammar of all that may be said instead of a call, as the engine takes it.

    Raises CannotWrite if the arguments cannot be written in this way, GrammarError if they are
    wrong or too large.
    """
    size = sum(len(json.dumps(tool.schema, ensure_ascii=False)) for tool in tools)
    if size > MAX_CHARACTERS:
        raise GrammarError(f"their parameters have {size} characters, more than {MAX_CHARACTERS}")
    lark = _Lark(writing, tokens, strips=strips)
    bodies = [lark.body(tool) for tool in tools]
    end = lark.literal(writing.end)
    lark.rule("body", f"({' | '.join(bodies)}) {end}")
    calls = "body"
    if writing.between is not None and max_calls > 1:
        following = lark.literal(writing.between + writing.call)
        calls += f" ({following} body){{0,{max_calls - 1}}}"
    lark.rule("calls", f"{calls} {lark.literal(writing.after)}")
    forced = f"{lark.literal(writing.before + writing.call)} calls"
    if is_forced or answer is not None:
        return lark.text(_forced_start(lark, writing, forced, answer=answer))
    return lark.text(_free_start(lark, writing, forced))


def _forced_start(lark: _Lark, writing: CallWriting, forced: str, *, answer: str | None) -> str:
    """An answer that is calls, after one message at most, or has the form `answer` instead."""
    messages = _messages(lark, writing)
    thought = f"({messages[0]})? " if messages else ""
    if answer is None:
        return thought + forced
    opening = lark.literal(writing.messages[-1] if messages else "")
    return f"{thought}{forced} | {thought}{opening} @{lark.answer(answer)}"


def _free_start(lark: _Lark, writing: CallWriting, forced: str) -> str:
    """Any answer, which may end in calls."""
    if not (messages := _messages(lark, writing)):
        return " | ".join(lark.free_starts(forced))
    last = " | ".join(f"{lark.literal(opening)} TEXT" for opening in writing.messages)
    return f"({' | '.join(messages)}){{0,{_MAX_MESSAGES}}} ({last} | {forced})"


def _messages(lark: _Lark, writing: CallWriting) -> list[str]:
    return [lark.until("TEXT", writing.message_end, opening) for opening in writing.messages]


class _Lark:
    """A Lark grammar while it is written."""

    def __init__(self, writing: CallWriting, tokens: Mapping[str, int], *, strips: bool) -> None:
        self._writing = writing
        self._tokens = tokens
        self._edge = r"\s\x1c-\x1f" if strips else ""
        written = "\n".join(writing.texts)
        marks = sorted((m for m in tokens if _is_mark(m) and m in written), key=len, reverse=True)
        # Without any, a pattern that matches nothing.
        self._marks = regex.compile(f"({'|'.join(map(regex.escape, marks)) or '(?!)'})")
        self._rules: list[str] = []
        self._grammars: list[dict[str, Any]] = []

    def rule(self, name: str, expression: str) -> str:
        self._rules.append(f"{name}: {expression}")
        return name.partition("[")[0]

    def literal(self, text: str) -> str:
        """This text, its markers as tokens."""
        return " ".join(self._pieces(text))

    def until(self, terminal: str, text: str, opening: str = "") -> str:
        """A terminal up to the text that ends it, and that text. The terminal must not match it."""
        first, *rest = self._pieces(text)
        before = self.literal(opening)
        if first.startswith("<"):
            return " ".join([before, terminal, first, *rest])
        number = len(self._rules)
        if not rest:
            return f"{before} {self.rule(f'until_{number}[lazy]', f'{terminal} {first}')}"
        both = self.rule(f"UNTIL_{number}", f"{terminal} {first}")
        return " ".join([before, both, *rest])

    def body(self, tool: CallableTool) -> str:
        """A call from its name to its arguments."""
        values, schema = self._writing.values, tool.schema
        head = self.literal(tool.name + self._writing.arguments)
        if values is None:
            return f"{head} @{self._json(schema)}"
        check_object(schema)
        arguments = []
        for key, value in schema.get("properties", {}).items():
            one = self._argument(values, key, value, schema)
            arguments.append(one if key in schema.get("required", ()) else f"({one})?")
        return " ".join([head, *arguments])

    def free_starts(self, forced: str) -> list[str]:
        """The ways an answer may go whose calls are free: text alone, or text and then calls."""
        writing = self._writing
        written = writing.before + writing.call
        text = "TEXT"
        starts = []
        if writing.call_at_start:
            text = "OPENING"
            brace = written[0]
            self.rule("OPENING", rf"TEXT & ~/\s*\{brace}(?s:.*)/")
            starts.append(forced)
        for start in writing.starts:
            _, _, rest = written.rpartition(start)
            rest = written if start not in written else rest
            starts.append(f"{self.until(text, start)} {self.literal(rest)} calls")
        return [*starts, text]

    def text(self, start: str) -> str:
        """The whole grammar in llguidance's notation."""
        marks = " | ".join(map(json.dumps, self._writing.starts)) or '"\\u0000"'
        lines = [f"start: {start}", *self._rules, "ANY: /(?s:.*)/"]
        lines.append(f"TEXT: ANY & ~(ANY ({marks}) ANY)")
        if self._writing.values is not None:
            lines.append(f"SHUT: ANY {json.dumps(self._writing.values.close_tag)} ANY")
        parts = json.dumps(self._grammars, ensure_ascii=False)
        if any(mark in parts for mark in self._tokens):
            # Text that reads like a token is spelled; forcing it would take the token.
            lines.insert(0, '%llguidance {"no_forcing": true}')
        grammars = [{"lark_grammar": "\n".join(lines)}, *self._grammars]
        return json.dumps({"grammars": grammars}, ensure_ascii=False, separators=(",", ":"))

    def _pieces(self, text: str) -> list[str]:
        pieces = (piece for piece in self._marks.split(text) if piece)
        return [
            f"<[{self._tokens[piece]}]>" if piece in self._tokens else json.dumps(piece)
            for piece in pieces
        ]

    def _argument(
        self, values: TaggedValues, key: str, schema: Any, root: Mapping[str, Any]
    ) -> str:
        if not regex.fullmatch(r"[\w.-]+", key):
            raise CannotWrite(f"the argument name {key!r} cannot be written as a tag")
        opening = values.open + key + values.after_key
        edge = self._edge or ("" if values.close.startswith("\n") else r"\n")
        text = tagged_text(schema, root, close_tag=values.close_tag, edge=edge)
        if text is not None:
            value = self.rule(f"VALUE_{len(self._rules)}", text)
            return self.until(value, values.close, opening)
        definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
        name = self._json({**definitions, **schema})
        return f"{self.literal(opening)} @{name} {self.literal(values.close)}"

    def answer(self, grammar: str) -> str:
        """The name of a grammar as the engine takes it, which is made a part of this one."""
        is_lark = not grammar.startswith("{")
        first, *others = [{"lark_grammar": grammar}] if is_lark else json.loads(grammar)["grammars"]
        self._grammars += [{**first, "name": "answer"}, *others]
        return "answer"

    def _json(self, schema: Mapping[str, Any]) -> str:
        """The name of a grammar for JSON of this schema."""
        name = f"json_{len(self._grammars)}"
        ready = json.loads(json_grammar(schema))["grammars"][0]["json_schema"]
        self._grammars.append({"name": name, "json_schema": ready})
        return name


def _is_mark(token: str) -> bool:
    """Whether a token of the vocabulary is a marker: no word, no white space, no punctuation."""
    return len(token) > 3 and not token.isalnum() and token.strip() == token
