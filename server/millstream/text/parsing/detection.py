"""Who reads a model's answers, decided once, when the model is loaded.

Rule: a name that the operator gives comes first, then the tokenizer's response template, then the
markers that the chat template is seen to use. A model that none of them tells about has no parser:
its text is content, and it calls tools only if it must, in plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import regex
from tokenizers import Tokenizer

from millstream.errors import StartupError
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.call_families import CALL_FAMILIES
from millstream.text.parsing.call_formats import CallFamily, CallWriting
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.output import OutputParser, parse_whole
from millstream.text.parsing.reasoning_formats import REASONING_FORMATS, ReasoningFormat
from millstream.text.parsing.response_template_parser import ResponseParsers
from millstream.text.parsing.response_templates import CannotCompile, compile_template

AUTO = "auto"
NONE = "none"

_F = TypeVar("_F", ReasoningFormat, CallFamily)


def special_tokens_of(tokenizer: Tokenizer) -> frozenset[str]:
    """The tokens that detokenising leaves out, more than transformers' `all_special_tokens`."""
    added = tokenizer.get_added_tokens_decoder().values()
    return frozenset(token.content for token in added if token.special)


def detect(
    chat_template: str,
    special_tokens: Collection[str],
    response_template: Mapping[str, Any] | None = None,
    *,
    response_parsers: ResponseParsers | None = None,
    reasoning: str = AUTO,
    tools: str = AUTO,
) -> AnswerReader:
    """How the answers of a model are read.

    special_tokens: those that detokenising leaves out, see `special_tokens_of`.
    response_parsers: its transformers tokenizer, for response templates that cannot be compiled.
    reasoning, tools: names of formats, "auto" or "none"; a name other than "auto" leaves the
    response template aside. Raises StartupError for an unknown name.
    """
    if response_template and reasoning == tools == AUTO:
        reader = _template_reader(
            response_template,
            response_parsers,
            chat_template=chat_template,
            special_tokens=special_tokens,
        )
        if reader is not None:
            return _with_writing(reader, chat_template)
    thought = _pick(REASONING_FORMATS, reasoning, chat_template, "reasoning")
    called = _pick(CALL_FAMILIES, tools, chat_template, "tool-call")
    reader = _with_tokens(_marker_reader(thought, called), special_tokens)
    return _with_writing(reader, chat_template, called)


def _template_reader(
    response_template: Mapping[str, Any],
    response_parsers: ResponseParsers | None,
    *,
    chat_template: str,
    special_tokens: Collection[str],
) -> AnswerReader | None:
    """The reader for a response template; None if neither we nor transformers can follow it."""
    try:
        template = compile_template(response_template)
    except CannotCompile:
        if response_parsers is None:
            return None
        return AnswerReader(
            "response template, calls delivered whole",
            visible=_visible(_strings(response_template), special_tokens),
            response_parsers=response_parsers,
            markup_reasoning=_pick(REASONING_FORMATS, AUTO, chat_template, "reasoning"),
        )
    reader = AnswerReader(
        "response template",
        template.reasoning,
        template.calls,
        template.noise,
        anchor=template.anchor,
    )
    return _with_tokens(reader, special_tokens)


def _marker_reader(thought: ReasoningFormat | None, called: CallFamily | None) -> AnswerReader:
    names = [
        f"{found.name} {what}"
        for found, what in ((thought, "reasoning"), (called, "calls"))
        if found
    ]
    noise = [noise for found in (thought, called) if found for noise in found.noise]
    return AnswerReader(
        ", ".join(names) or "none",
        thought,
        called.calls if called else (),
        tuple(dict.fromkeys(noise)),
    )


def _with_writing(
    reader: AnswerReader, chat_template: str, called: CallFamily | None = None
) -> AnswerReader:
    """The reader with the first way to write calls that it reads back.

    called: the family that it reads; without it, all that the chat template may speak are tried.
    """
    spoken = [f for f in CALL_FAMILIES if any(sign in chat_template for sign in f.signs)]
    for family in [called] if called else spoken:
        for writing in sorted(family.writings, key=lambda one: one.sign not in chat_template):
            if _is_read_back(writing, reader.parser):
                return replace(reader, writing=writing)
    return reader


def _is_read_back(writing: CallWriting, parser_of: Callable[..., OutputParser]) -> bool:
    """Whether calls with an argument, written in this way, are read as what they are."""
    value, tags = '{"key": "text"}', writing.values
    if tags is not None:
        value = f"{tags.open}key{tags.after_key}text{tags.close}"
    names = ["f"] if writing.between is None else ["f", "g-2"]
    calls = [f"{writing.call}{name}{writing.arguments}{value}{writing.end}" for name in names]
    text = writing.before + (writing.between or "").join(calls) + writing.after
    parameters = {"type": "object", "properties": {"key": {"type": "string"}}}
    functions = [{"name": name, "parameters": parameters} for name in names]
    tools = [{"type": "function", "function": function} for function in functions]
    said = parse_whole(parser_of(prompt="", tools=tools, hold=GrammarHold.ANSWER), text)
    read = [(call.name, json.loads(call.arguments)) for call in said.calls]
    return read == [(name, {"key": "text"}) for name in names] and not said.content


def _pick(formats: Sequence[_F], name: str, chat_template: str, what: str) -> _F | None:
    if name == NONE:
        return None
    if name == AUTO:
        return next((f for f in formats if any(s in chat_template for s in f.signs)), None)
    for candidate in formats:
        if candidate.name == name:
            return candidate
    known = ", ".join([AUTO, NONE, *(f.name for f in formats)])
    raise StartupError(f"There is no {what} parser {name!r}. Choose one of: {known}.")


def _with_tokens(reader: AnswerReader, special_tokens: Collection[str]) -> AnswerReader:
    patterns = [p for c in reader.calls for p in (c.open, *c.ends, c.parameter, c.parameter_close)]
    if reader.reasoning is not None:
        patterns += [reader.reasoning.open, reader.reasoning.close]
    visible = _visible(patterns, special_tokens)
    hidden = sorted(set(special_tokens) - visible, key=len, reverse=True)
    if not visible or not hidden:
        return replace(reader, visible=visible)
    return replace(
        reader, visible=visible, noise=(*reader.noise, "|".join(map(regex.escape, hidden)))
    )


def _visible(texts: Iterable[str], special_tokens: Iterable[str]) -> frozenset[str]:
    text = "\n".join(texts)
    return frozenset(t for t in special_tokens if t in text or regex.escape(t) in text)


def _strings(value: Any) -> Iterator[str]:
    """All strings within JSON-like data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _strings(item))
    elif isinstance(value, Sequence):
        yield from (text for item in value for text in _strings(item))
