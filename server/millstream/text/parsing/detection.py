"""Which parser reads a model's answers, decided once, when the model is loaded.

Rule: a name that the operator gives comes first, then the tokenizer's response template, then the
markers that the chat template is seen to use. A model that none of them tells about has no parser:
its text is content, and it calls tools only if it must, in plain JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import regex
from tokenizers import Tokenizer

from millstream.errors import StartupError
from millstream.text.parsing.deltas import OutputParser
from millstream.text.parsing.formats import (
    REASONING_FORMATS,
    TOOL_FORMATS,
    CallFormat,
    ReasoningFormat,
    ToolFormat,
)
from millstream.text.parsing.parser import Held, MarkupParser
from millstream.text.parsing.scanning import compiled
from millstream.text.parsing.schemas import Tools
from millstream.text.parsing.template_parser import ResponseParsers, TemplateParser
from millstream.text.parsing.templates import CannotCompile, compile_template
from millstream.text.parsing.writings import (
    JSON_CALLS,
    JSON_WRITING,
    WRITINGS,
    CallWriting,
    is_read_back,
)

AUTO = "auto"
NONE = "none"

_F = TypeVar("_F", ReasoningFormat, ToolFormat)


@dataclass(frozen=True, slots=True)
class ParserChoice:
    """How a model's answers are read.

    description: for the operator. visible: the special tokens that are markers; if there are any,
    answers must be detokenised with special tokens, of which the parser drops all others.
    anchor: pattern of the text after which, in a prompt, the answer begins. writing: how calls are
    written that this reads, if that is known. markup_reasoning: as the chat template shows it,
    where transformers' parser reads the answers.
    """

    description: str = "none"
    reasoning: ReasoningFormat | None = None
    calls: tuple[CallFormat, ...] = ()
    noise: tuple[str, ...] = ()
    visible: frozenset[str] = frozenset()
    anchor: str = ""
    response_parsers: ResponseParsers | None = None
    writing: CallWriting | None = None
    markup_reasoning: ReasoningFormat | None = None

    @property
    def is_none(self) -> bool:
        return not (self.reasoning or self.calls or self.noise or self.response_parsers)

    @property
    def can_call_tools(self) -> bool:
        return bool(self.calls or self.response_parsers)

    @property
    def strips_values(self) -> bool:
        """Whether white space around the values of tags is dropped."""
        return any(call.strip for call in self.calls)

    @property
    def of_json_calls(self) -> ParserChoice:
        """The same for an answer whose calls are plain JSON."""
        return replace(self.of_forms, calls=(JSON_CALLS,), writing=JSON_WRITING)

    @property
    def of_forms(self) -> ParserChoice:
        """The same for an answer of a form that is no call."""
        if self.response_parsers is None:
            return self
        return replace(self, response_parsers=None, reasoning=self.markup_reasoning, writing=None)

    def reads(self, tools: Sequence[Mapping[str, Any]]) -> bool:
        """Whether there can be anything but content in an answer that may call these tools."""
        return bool(tools or self.reasoning or self.response_parsers)

    def parser(
        self,
        *,
        prompt: str,
        tools: Sequence[Mapping[str, Any]] = (),
        held: Held = Held.NOTHING,
    ) -> OutputParser:
        """A parser for one answer.

        prompt: the text before the answer, which may have opened the reasoning. tools: as in an
        OpenAI request, validated; without any, nothing is a call. held: by a grammar.
        """
        if self.response_parsers is not None:
            return TemplateParser(self.response_parsers, prompt=prompt, tools=tools)
        return MarkupParser(
            reasoning=self.reasoning,
            calls=self.calls,
            noise=self.noise,
            tools=Tools.of(tools),
            started=self._started(prompt),
            held=held,
        )

    def _started(self, prompt: str) -> str:
        """What the prompt has already written of the answer."""
        if self.anchor:
            ends = [match.end() for match in compiled(self.anchor).finditer(prompt)]
            return prompt[ends[-1] :] if ends else ""
        if self.reasoning is None:
            return ""
        match = compiled(rf"(?:{self.reasoning.open})\s*\Z").search(prompt)
        return match.group() if match else ""


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
) -> ParserChoice:
    """The parser for a model.

    special_tokens: those that detokenising leaves out, see `special_tokens_of`.
    response_parsers: its transformers tokenizer, for response templates that cannot be compiled.
    reasoning, tools: names of formats, "auto" or "none"; a name other than "auto" leaves the
    response template aside. Raises StartupError for an unknown name.
    """
    if response_template and reasoning == tools == AUTO:
        try:
            template = compile_template(response_template)
        except CannotCompile:
            if response_parsers is not None:
                visible = _visible(_strings(response_template), special_tokens)
                choice = ParserChoice(
                    "response template, calls delivered whole",
                    visible=visible,
                    response_parsers=response_parsers,
                    markup_reasoning=_pick(REASONING_FORMATS, AUTO, chat_template, "reasoning"),
                )
                return _with_writing(choice, chat_template)
        else:
            choice = ParserChoice(
                "response template",
                template.reasoning,
                template.calls,
                template.noise,
                anchor=template.anchor,
            )
            return _with_writing(_with_tokens(choice, special_tokens), chat_template)
    thought = _pick(REASONING_FORMATS, reasoning, chat_template, "reasoning")
    called = _pick(TOOL_FORMATS, tools, chat_template, "tool-call")
    names = [
        f"{found.name} {what}"
        for found, what in ((thought, "reasoning"), (called, "calls"))
        if found
    ]
    choice = ParserChoice(
        ", ".join(names) or "none",
        thought,
        called.calls if called else (),
        tuple(
            dict.fromkeys(noise for found in (thought, called) if found for noise in found.noise)
        ),
    )
    choice = _with_tokens(choice, special_tokens)
    return _with_writing(choice, chat_template, called.name if called else None)


def _with_writing(
    choice: ParserChoice, chat_template: str, name: str | None = None
) -> ParserChoice:
    """The choice with the first way to write calls that it reads back.

    name: of the format that it reads; without it, all that the chat template may speak are tried.
    """
    names = [f.name for f in TOOL_FORMATS if any(sign in chat_template for sign in f.signs)]
    for known in [name] if name else names:
        ways = WRITINGS[known]
        for way in sorted(ways, key=lambda way: way.sign not in chat_template):
            if is_read_back(way, choice.parser):
                return replace(choice, writing=way)
    return choice


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


def _with_tokens(choice: ParserChoice, special_tokens: Collection[str]) -> ParserChoice:
    patterns = [p for c in choice.calls for p in (c.open, *c.ends, c.parameter, c.parameter_close)]
    if choice.reasoning is not None:
        patterns += [choice.reasoning.open, choice.reasoning.close]
    visible = _visible(patterns, special_tokens)
    hidden = sorted(set(special_tokens) - visible, key=len, reverse=True)
    if not visible or not hidden:
        return replace(choice, visible=visible)
    return replace(
        choice, visible=visible, noise=(*choice.noise, "|".join(map(regex.escape, hidden)))
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
