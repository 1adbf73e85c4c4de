"""From a checked chat request to engine requests: everything that takes time or needs the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from millstream.core.request import Grammar, Request
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.context import ModelContext
from millstream.generation.prompts import Prompts, RenderedPrompt
from millstream.intake.engine_request import check_token_ids, engine_request, with_grammar
from millstream.intake.fields.tools import WantedCalls
from millstream.intake.requests.chat import ChatRequest
from millstream.text.parsing.answer_reader import AnswerReader
from millstream.text.parsing.grammar_hold import GrammarHold
from millstream.text.parsing.output import OutputParser


@dataclass(frozen=True, slots=True)
class Prepared:
    """first: the engine request of the first answer, but for the id of its stream.

    parsers: one for each answer, or none if there is nothing but content to be found.
    unenforced: what of the wanted form is left to the model.
    """

    first: Request
    parsers: tuple[OutputParser, ...] = ()
    unenforced: tuple[str, ...] = ()

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.first.prompt


@dataclass(frozen=True, slots=True)
class _Form:
    """What an answer is held to, if anything, and who reads it."""

    grammar: Grammar | None
    reader: AnswerReader
    hold: GrammarHold
    unenforced: tuple[str, ...] = ()

    @property
    def begins_at_once(self) -> bool:
        """Whether the whole answer is of the form, so that nothing of it can be reasoning."""
        return self.hold.is_whole and (
            self.grammar is not None and self.grammar.starts_after is None
        )


class Preparation:
    """Prepares requests for one model, beside the event loop that it is called from."""

    def __init__(
        self, context: ModelContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        self._context = context
        self._prompts = prompts
        self._grammars = grammars

    async def prepare(self, chat: ChatRequest) -> Prepared:
        """Raises InvalidRequest for what this model cannot do, ContextTooLong for a prompt that
        leaves no room for an answer. Cancelled, ends what it does soon."""
        run = self._context.workers.threads.run
        if chat.wanted_format is None and chat.wanted_calls is None:
            # Nearly always: all in one go, since the way to a thread and back is dear.
            return await run(partial(self._free, chat))
        prompt, request = await run(partial(self._request, chat))
        form = await self._form(chat, prompt)
        request = with_grammar(request, form.grammar, chat)
        parsers = await run(partial(self._parsers, chat, prompt.head, form))
        return Prepared(request, parsers, form.unenforced)

    def _free(self, chat: ChatRequest) -> Prepared:
        """An answer that is held to nothing."""
        prompt, request = self._request(chat)
        form = _Form(None, self._context.parsers, GrammarHold.NOTHING)
        return Prepared(request, self._parsers(chat, prompt.head, form))

    def _request(self, chat: ChatRequest) -> tuple[RenderedPrompt, Request]:
        """The prompt, and the request for an answer to it that may be anything."""
        engine = self._context.engine
        info = engine.info
        check_token_ids(chat, vocab_size=info.vocab_size)
        prompt = self._prompts.prompt(chat, max_context=info.max_context)
        room = engine.check_length(num_prompt=len(prompt.token_ids))
        vocabulary = self._context.vocabulary
        request = engine_request(
            chat,
            info,
            request_id=0,
            prompt=prompt.token_ids,
            wanted=chat.wanted_tokens,
            room=room,
            logprobs=chat.num_logprobs,
            bad_words=[way for word in chat.bad_words or () for way in vocabulary.sequences(word)],
            end_of_turn=(*info.stop_token_ids, *self._context.stop_token_ids),
        )
        return prompt, request

    def _parsers(self, chat: ChatRequest, text: str, form: _Form) -> tuple[OutputParser, ...]:
        """text: the prompt. None for those who want special tokens, or a format from the start."""
        tools, is_at_once = chat.callable_tools, form.begins_at_once
        if chat.skip_special_tokens is False or not form.reader.reads(tools):
            return ()
        if is_at_once and not tools:
            return ()
        started = "" if is_at_once else text
        return tuple(
            form.reader.parser(prompt=started, tools=tools, hold=form.hold)
            for _ in range(chat.num_choices)
        )

    async def _form(self, chat: ChatRequest, prompt: RenderedPrompt) -> _Form:
        """What the client wants the answer to look like."""
        parsers = self._context.parsers
        may_think = self._may_think(prompt.variables)
        wanted, unenforced = chat.wanted_format, tuple[str, ...]()
        calls = chat.wanted_calls if wanted is None else chat.calls_beside_a_format
        if wanted is not None:
            wanted, unenforced = await self._grammars.enforceable(wanted)
        if calls is not None:
            try:
                form = await self._grammars.calls(
                    calls,
                    chat.tools or (),
                    parsers,
                    prompt=prompt.head_ids,
                    may_think=may_think,
                    beside=wanted,
                )
            except InvalidRequest as error:
                if wanted is not None or not _may_be_free(chat, calls, error):
                    raise
                return _Form(None, parsers, GrammarHold.NOTHING)
            free = GrammarHold.CALLS if wanted is None else GrammarHold.EITHER
            hold = GrammarHold.ANSWER if calls.is_forced else free
            unenforced = tuple(dict.fromkeys([*unenforced, *form.unenforced]))
            return _Form(form.grammar, form.reader, hold, unenforced)
        assert wanted is not None, "what is held to nothing has been prepared in one go"
        grammar = await self._grammars.grammar(wanted, prompt.head_ids, may_think=may_think)
        return _Form(grammar, parsers.for_formatted_answers, GrammarHold.ANSWER, unenforced)

    def _may_think(self, variables: Mapping[str, Any]) -> bool:
        # Models whose templates have this switch think unless it is off.
        has_switch = self._context.chat.reads("enable_thinking")
        return bool(
            variables.get("enable_thinking", has_switch)
            or variables.get("thinking")
            or variables.get("reasoning_effort", "none") != "none"
        )


def _may_be_free(chat: ChatRequest, calls: WantedCalls, error: InvalidRequest) -> bool:
    """Whether calls that could not be held may be left free: unless the wish itself is wrong."""
    tools = [(place, (chat.tools or ())[place]) for place in calls.places]
    wishes = [f"tools[{place}].{tool.path('parameters')}" for place, tool in tools if tool.strict]
    return calls.is_wish and error.param not in wishes
