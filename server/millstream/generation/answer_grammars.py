"""From the format or the calls a client asks for to the grammar of an engine request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from millstream.core.request import Grammar
from millstream.errors import InvalidRequest
from millstream.intake.fields.response_format import WantedFormat
from millstream.intake.fields.tools import Tool, WantedCalls
from millstream.text.grammars.answer_formats import (
    CHECKED_MARK,
    GrammarError,
    without_forcing,
)
from millstream.text.grammars.call_grammar import (
    MAX_CALLS,
    CallableTool,
    arguments_schema,
    calls_grammar,
)
from millstream.text.grammars.schema_keywords import EnforceableSchema, enforceable
from millstream.text.grammars.tagged_values import CannotWrite
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.reasoning_formats import REASONING_FORMATS
from millstream.workers.grammar_checks import PartError
from millstream.workers.workers import Workers

_REASONING = [one.markers for one in REASONING_FORMATS if one.markers]


class CallForm(NamedTuple):
    """The form of an answer that calls tools, and how it is read.

    unenforced: the keywords of the tools' schemas that are left to the model.
    """

    grammar: Grammar
    reader: AnswerReader
    unenforced: tuple[str, ...] = ()


class AnswerGrammars:
    """Grammars for the answers of one model. For one event loop, which it does not hold up."""

    def __init__(self, tokenizer: Tokenizer, workers: Workers) -> None:
        self._workers = workers
        self._tokenizer = tokenizer
        # What llguidance reads: tokens that are bytes, or fall back to them.
        decoder = tokenizer.decoder.__getstate__() if tokenizer.decoder else b""
        self._has_bytes = b'"ByteLevel"' in decoder or b'"ByteFallback"' in decoder
        # Only where each marker is a token of its own: text can be written in many ways.
        ids = [tuple(map(tokenizer.token_to_id, markers)) for markers in _REASONING]
        self._reasoning = [(begin, end) for begin, end in ids if None not in (begin, end)]
        self._tokens = {t.content: i for i, t in tokenizer.get_added_tokens_decoder().items()}
        self._marks = [mark for mark in self._tokens if mark.startswith(("<", "["))]

    async def enforceable(self, wanted: WantedFormat) -> tuple[WantedFormat, tuple[str, ...]]:
        """The format as a grammar can enforce it, and the keywords that are left to the model.

        Raises InvalidRequest if there are any and the format is strict.
        """
        if wanted.kind != "json":
            return wanted, ()
        schema = await self._workers.threads.run(partial(enforceable, wanted.value))
        if wanted.is_strict:
            _check_unenforced(wanted.param, schema)
        return wanted._replace(value=schema.schema), schema.keywords

    async def grammar(
        self, wanted: WantedFormat, prompt: Sequence[int], *, may_think: bool
    ) -> Grammar:
        """may_think: whether the answer may begin with reasoning that the prompt did not open.

        Raises InvalidRequest for what cannot be enforced.
        """
        text = await self._format_text(wanted)
        return await self._workers.threads.run(
            partial(self._of_format, wanted, text, prompt, may_think=may_think)
        )

    async def calls(
        self,
        wanted: WantedCalls,
        tools: Sequence[Tool],
        parsers: AnswerReader,
        *,
        prompt: Sequence[int],
        may_think: bool,
        beside: WantedFormat | None = None,
    ) -> CallForm:
        """Calls in the model's own format; where that cannot be, and no answer is free, JSON.

        parsers: what reads the model's answers. may_think: as for `grammar()`. beside: the format
        of an answer without calls. Raises InvalidRequest for tools whose arguments cannot be held
        to their schemas.
        """
        self._check_bytes(wanted.param)
        answer = None if beside is None else await self._format_text(beside)
        callable_tools, unenforced = await self._callable(wanted, tools)
        readers = [parsers] if parsers.writing else []
        readers += [parsers.for_json_calls] if wanted.is_forced or beside else []
        reason = "this model's format of tool calls is read only when they are complete"
        for reader in readers:
            try:
                text = await self._calls_text(wanted, callable_tools, reader, answer=answer)
            except CannotWrite as error:
                reason = str(error)
                continue
            except GrammarError as error:
                raise InvalidRequest(f"tools: {error}", param="tools") from error
            if reader.reasoning is None and reader.response_parsers is None:
                return CallForm(Grammar(text=text), reader, unenforced)
            placed = partial(self._placed, text, prompt, may_think=may_think)
            return CallForm(await self._workers.threads.run(placed), reader, unenforced)
        raise InvalidRequest(
            f"{wanted.param}: {reason}; tool_choice required, or a named tool, can do it",
            param=wanted.param,
        )

    async def _callable(
        self, wanted: WantedCalls, tools: Sequence[Tool]
    ) -> tuple[list[CallableTool], tuple[str, ...]]:
        """The tools that may be called, and the keywords that are left to the model.

        Raises InvalidRequest for parameters that are no schema, or not one that can be kept.
        """
        called: list[CallableTool] = []
        unenforced: list[str] = []
        try:
            for place in wanted.places:
                function = tools[place].called
                read = partial(_enforceable_arguments, function.parameters)
                schema = await self._workers.threads.run(read)
                if function.strict:
                    _check_unenforced(_parameters_path(tools, place), schema)
                called.append(CallableTool(function.name, schema.schema))
                unenforced += schema.keywords
            await self._workers.grammars.texts([("json", tool.schema) for tool in called])
        except GrammarError as error:
            index = error.index if isinstance(error, PartError) else len(called)
            path = _parameters_path(tools, wanted.places[index])
            raise InvalidRequest(f"{path}: {error}", param=path) from error
        return called, tuple(dict.fromkeys(unenforced))

    async def _format_text(self, wanted: WantedFormat) -> str:
        """The grammar of a format. Raises InvalidRequest for what cannot be enforced."""
        self._check_bytes(wanted.param)
        try:
            (text,) = await self._workers.grammars.texts([(wanted.kind, wanted.value)])
        except GrammarError as error:
            raise InvalidRequest(f"{wanted.param}: {error}", param=wanted.param) from error
        return text

    async def _calls_text(
        self,
        wanted: WantedCalls,
        tools: Sequence[CallableTool],
        reader: AnswerReader,
        *,
        answer: str | None,
    ) -> str:
        """The grammar of calls as this reader reads them, or of what may be said instead.

        Raises CannotWrite, GrammarError.
        """
        assert reader.writing is not None
        written = partial(
            calls_grammar,
            reader.writing,
            tools,
            is_forced=wanted.is_forced,
            max_calls=wanted.max_calls or MAX_CALLS,
            strips=reader.strips_values,
            answer=None if wanted.is_forced else answer,
        )
        run = self._workers.threads.run
        checked = await run(partial(written, dict.fromkeys(self._tokens, CHECKED_MARK)))
        await self._workers.grammars.texts([("ready", checked)])
        return await run(partial(written, self._tokens))

    def _check_bytes(self, param: str) -> None:
        if not self._has_bytes:
            raise InvalidRequest(
                f"{param}: this model's tokenizer is not made of bytes, so its answers "
                "cannot be given a form",
                param=param,
            )

    def _of_format(
        self, wanted: WantedFormat, text: str, prompt: Sequence[int], *, may_think: bool
    ) -> Grammar:
        said = json.dumps(wanted.value, ensure_ascii=False)
        if any(mark in said for mark in self._marks):
            text = without_forcing(text)
        return self._placed(text, prompt, may_think=may_think)

    def _placed(self, text: str, prompt: Sequence[int], *, may_think: bool) -> Grammar:
        """The grammar, to begin where the answer does: at once, or after the reasoning."""
        last = self._last_marker(prompt)
        for begin, end in self._reasoning:
            if last == begin:
                return Grammar(text=text, starts_after=end)
            if last is None and may_think:
                return Grammar(text=text, starts_after=end, opens_with=begin)
        return Grammar(text=text)

    def _last_marker(self, prompt: Sequence[int]) -> int | None:
        """The marker that the prompt ends with, apart from white space."""
        markers = {token for pair in self._reasoning for token in pair}
        for token in reversed(prompt):
            if token in markers:
                return token
            if self._tokenizer.decode([token], skip_special_tokens=False).strip():
                return None
        return None


def _enforceable_arguments(parameters: Mapping[str, Any] | None) -> EnforceableSchema:
    return enforceable(arguments_schema(parameters))


def _check_unenforced(path: str, schema: EnforceableSchema) -> None:
    """Raises InvalidRequest for what a strict schema asks for and no grammar can see to."""
    if schema.unenforced:
        keyword, place = schema.unenforced[0]
        raise InvalidRequest(
            f"{path}: {keyword} (at {place}) cannot be enforced; leave it out, or leave out strict "
            "and it is left to the model",
            param=path,
        )


def _parameters_path(tools: Sequence[Tool], place: int) -> str:
    return f"tools[{place}].{tools[place].path('parameters')}"
