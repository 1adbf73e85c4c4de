"""How the answers of a model are read: what `detection` finds out, and a parser for each answer.

A reader is made once for a model. A request may need another one: an answer that a grammar holds to
a form, or to calls in plain JSON, is not read by transformers' parser, which knows neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from millstream.errors import InvalidRequest
from millstream.text.parsing.call_families import PLAIN_JSON
from millstream.text.parsing.call_formats import CallFormat, CallWriting
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.markup_parser import MarkupParser
from millstream.text.parsing.output import OutputParser
from millstream.text.parsing.reasoning_formats import ReasoningFormat
from millstream.text.parsing.response_template_parser import ResponseParsers, TemplateParser
from millstream.text.parsing.scanning import compiled
from millstream.text.parsing.tool_schemas import Tools


@dataclass(frozen=True, slots=True)
class AnswerReader:
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
    def for_json_calls(self) -> AnswerReader:
        """A reader of answers whose calls are plain JSON."""
        return replace(
            self.for_formatted_answers, calls=PLAIN_JSON.calls, writing=PLAIN_JSON.writings[0]
        )

    @property
    def for_formatted_answers(self) -> AnswerReader:
        """A reader of answers that a grammar holds to a form that is no call."""
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
        hold: GrammarHold = GrammarHold.NOTHING,
    ) -> OutputParser:
        """A parser for one answer.

        prompt: the text before the answer, which may have opened the reasoning. tools: as in an
        OpenAI request, validated; without any, nothing is a call. hold: what a grammar sees to.
        """
        if self.response_parsers is not None:
            return TemplateParser(self.response_parsers, prompt=prompt, tools=tools)
        return MarkupParser(
            reasoning=self.reasoning,
            calls=self.calls,
            noise=self.noise,
            tools=Tools.of(tools),
            started=self._started(prompt),
            hold=hold,
        )

    def open_thought(self, prompt: str) -> str:
        """The prompt with the marker that opens a thought, unless it ends with that already.

        Raises InvalidRequest for a model whose marker is not known.
        """
        form = self.reasoning or self.markup_reasoning
        if form is None or form.markers is None:
            raise InvalidRequest(
                "this model cannot go on with a thought that was cut", param="messages"
            )
        opening = form.markers[0]
        return prompt if prompt.rstrip().endswith(opening) else f"{prompt}{opening}\n"

    def _started(self, prompt: str) -> str:
        """What the prompt has already written of the answer."""
        if self.anchor:
            ends = [match.end() for match in compiled(self.anchor).finditer(prompt)]
            return prompt[ends[-1] :] if ends else ""
        if self.reasoning is None:
            return ""
        match = compiled(rf"(?:{self.reasoning.open})\s*\Z").search(prompt)
        return match.group() if match else ""
