"""A model that knows a grammar and nothing else: tokenizers, random tools and a random writer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer

from millstream.text.grammars.call_grammar import CallableTool, arguments_schema
from millstream.text.parsing.tool_schemas import type_of
from millstream.text.vocabulary import Vocabulary

MARKS = [
    *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    *("<minimax:tool_call>", "</minimax:tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>"),
    *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<think>", "</think>"),
    *("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>", "<|call|>"),
]
# What may be taken for a part of a call, and what ends one too early.
NASTY = [
    *MARKS,
    *("</parameter>", "\n</parameter>\n", "</function>", "<function=", '<invoke name="now">'),
    *('{"name": "now", "arguments": {}}', '"}', "\n", "```", " to=functions.now", "]", "null"),
]

CLOSING = [
    "</arg_value>",
    "\n</parameter>\n",
    "</parameter>",
    '"',
    "}",
    "]",
    "<|end|><|start|>assistant",
    "0",
]


def marked(tokenizer: Tokenizer, marks: Sequence[str] = MARKS) -> Tokenizer:
    """The same with these markers as tokens of their own, some of them special."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.add_tokens([AddedToken(mark, special=bool(i % 2)) for i, mark in enumerate(marks)])
    return copy


def tokens_of(tokenizer: Tokenizer) -> dict[str, int]:
    return {token.content: id_ for id_, token in tokenizer.get_added_tokens_decoder().items()}


class Writer:
    """Draws tokens that a grammar allows. Now and then it would like to write something nasty."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ll = LLTokenizer(tokenizer.to_str())
        vocabulary = Vocabulary(tokenizer)
        self._raw = [vocabulary[token].raw for token in range(tokenizer.get_vocab_size())]

    def write(self, grammar: str, source: random.Random, *, limit: int = 1500) -> list[str]:
        """The pieces of a complete text, token by token."""
        matcher = LLMatcher(self._ll, grammar, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        tokens: list[int] = []
        wish = b""
        for step in range(limit):
            allowed = self._allowed(matcher)
            if matcher.is_accepting() and (not allowed or source.random() < 0.2):
                return self._pieces(tokens)
            assert allowed, f"no token after {self._tokenizer.decode(tokens)!r}"
            is_late = step > limit / 4
            if not wish and (is_late or source.random() < 0.2):
                wish = source.choice(CLOSING if is_late else NASTY).encode()
            fitting = [t for t in allowed if wish and wish.startswith(self._raw[t])]
            token = source.choice(fitting or allowed)
            wish = wish[len(self._raw[token]) :] if wish.startswith(self._raw[token]) else b""
            tokens.append(token)
            matcher.consume_token(token)
        raise AssertionError(f"no end: {self._tokenizer.decode(tokens)!r}")

    def _allowed(self, matcher: LLMatcher) -> list[int]:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        assert not matcher.is_error(), matcher.get_error()
        ids: list[int] = np.flatnonzero(bits[: len(self._raw)]).tolist()
        return [token for token in ids if token not in self._ll.eos_tokens]

    def _pieces(self, tokens: Sequence[int]) -> list[str]:
        """What a detokenizer would give: cut where tokens end, but within no character."""
        whole = b"".join(self._raw[token] for token in tokens)
        pieces, start, end = [], 0, 0
        for token in tokens:
            end += len(self._raw[token])
            try:
                pieces.append(whole[start:end].decode())
            except UnicodeDecodeError:
                continue
            start = end
        assert start == len(whole)
        return pieces


Check = Callable[[Any], bool]


def random_value(source: random.Random, depth: int) -> dict[str, Any]:
    """A schema whose values are short."""
    kinds = ["integer", "string", "enum", "null or string", "boolean", "any string"]
    kind = source.choice(kinds + ["array", "object", "reference", "numbers"] * (depth > 0))
    match kind:
        case "integer":
            return {"type": "integer", "minimum": source.randint(-50, 5), "maximum": 3000}
        case "string":
            low = source.randint(0, 3)
            return {"type": "string", "minLength": low, "maxLength": low + source.randint(1, 20)}
        case "any string":
            return {"type": "string", "description": "any"}
        case "enum":
            return {"enum": source.sample(["a b", "", "null", "true", "ü😀", "<think>x"], 3)}
        case "null or string":
            return {
                "anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}],
                "default": None,
            }
        case "boolean":
            return {"type": "boolean"}
        case "numbers":
            return {"enum": [1, 2.5, None, [1], {"a": "</parameter>"}]}
        case "array":
            items = random_value(source, depth - 1)
            return {"type": "array", "items": items, "maxItems": 3}
        case "object":
            return random_object(source, depth - 1)
    return {"$ref": "#/$defs/Some"}


def random_object(source: random.Random, depth: int = 2) -> dict[str, Any]:
    names = source.sample(["city", "a-b", "x.y", "days", "name", "arguments"], source.randint(0, 4))
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {name: random_value(source, depth) for name in names}
    schema["required"] = source.sample(names, source.randint(0, len(names)))
    schema["additionalProperties"] = False
    return schema


DEFINITIONS = {
    "Some": {"type": "object", "properties": {"t": {"$ref": "#/$defs/Text"}}, "required": ["t"]}
    | {"additionalProperties": False},
    "Text": {"type": "string", "maxLength": 12},
}


def random_tools(source: random.Random) -> list[dict[str, Any]]:
    """As in a request."""
    names = source.sample(["now", "get_weather", "get", "f-1"], source.randint(1, 3))
    tools = []
    for name in names:
        parameters = random_object(source) | {"$defs": DEFINITIONS}
        function = {"name": name} | ({"parameters": parameters} if source.random() < 0.8 else {})
        tools.append({"type": "function", "function": function})
    return tools


def callable_tools(tools: Sequence[dict[str, Any]]) -> list[CallableTool]:
    functions = [tool["function"] for tool in tools]
    return [CallableTool(f["name"], arguments_schema(f.get("parameters"))) for f in functions]


def is_valid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is one of a schema as they are made here."""
    if "$ref" in schema:
        return is_valid(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(is_valid(value, one, root) for one in schema["anyOf"])
    if "enum" in schema:
        return json.dumps(value) in map(json.dumps, schema["enum"])
    if type_of(value) != schema["type"]:
        return False
    match value:
        case str():
            return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        case list():
            return len(value) <= 3 and all(is_valid(one, schema["items"], root) for one in value)
        case dict():
            known = schema["properties"]
            return set(schema.get("required", ())) <= set(value) <= set(known) and all(
                is_valid(one, known[key], root) for key, one in value.items()
            )
        case bool() | None:
            return True
    return bool(schema["minimum"] <= value <= schema["maximum"])
