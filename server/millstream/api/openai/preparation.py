"""From a checked chat request to engine requests: everything that takes time or needs the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from millstream.api.context import ServerContext
from millstream.api.openai.generation import check_token_ids, choice_seed, engine_request
from millstream.api.openai.grammars import Formats
from millstream.api.openai.schema import ChatRequest
from millstream.core.grammar import Grammar
from millstream.core.request import Request
from millstream.errors import InvalidRequest
from millstream.text.parsing.deltas import OutputParser
from millstream.text.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready for the engine, but for the ids of its streams.

    parsers: one for each answer, or none if there is nothing but content to be found.
    """

    first: Request
    parsers: tuple[OutputParser, ...] = ()

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.first.prompt

    def request(self, request_id: int, index: int, *, follows: int | None) -> Request:
        """The request of one answer. Only the first reports on the prompt."""
        sampling = self.first.sampling
        return replace(
            self.first,
            id=request_id,
            sampling=replace(sampling, seed=choice_seed(sampling.seed, index)),
            prompt_logprobs=None if index else self.first.prompt_logprobs,
            follows=follows,
        )


class Preparation:
    """Prepares requests for one model. Safe to call from several threads."""

    def __init__(self, context: ServerContext, vocabulary: Vocabulary) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._formats = Formats(context.tokenizer)

    def prepare(self, chat: ChatRequest) -> Prepared:
        """Raises InvalidRequest for what this model cannot do, ContextTooLong for a prompt that
        leaves no room for an answer."""
        engine = self._context.engine
        info = engine.info
        check_token_ids(chat, vocab_size=info.vocab_size)
        variables = self._variables(chat)
        text = self._render(chat, variables)
        prompt = self._context.chat.tokenize(text, max_context=info.max_context)
        room = engine.check_length(num_prompt=len(prompt))
        vocabulary = self._vocabulary
        request = engine_request(
            chat,
            info,
            request_id=0,
            prompt=prompt,
            wanted=chat.wanted_tokens,
            room=room,
            logprobs=chat.num_logprobs,
            bad_words=[way for word in chat.bad_words or () for way in vocabulary.sequences(word)],
            end_of_turn=(*info.stop_token_ids, *self._context.stop_token_ids),
        )
        grammar = self._grammar(chat, prompt, variables)
        if grammar is not None and not request.stop_token_ids:
            raise InvalidRequest(
                "an answer with a format needs a token that ends it: stop_token_ids, or the "
                "model's own without ignore_eos",
                param="ignore_eos" if chat.ignore_eos else "stop_token_ids",
            )
        return Prepared(replace(request, grammar=grammar), self._parsers(chat, text, grammar))

    def _render(self, chat: ChatRequest, variables: dict[str, Any]) -> str:
        """The prompt as text. Raises InvalidRequest for tools that the model cannot be offered."""
        formatter = self._context.chat
        tools = chat.offered_tools
        if tools and not (self._context.parsers.can_call_tools and formatter.reads("tools")):
            raise InvalidRequest("tools: this model cannot call any", param="tools")
        is_continued = bool(chat.continue_final_message)
        return formatter.render(
            [message.to_template() for message in chat.messages],
            add_generation_prompt=chat.add_generation_prompt is not False and not is_continued,
            continue_final_message=is_continued,
            variables=variables,
            tools=tools,
        )

    def _parsers(
        self, chat: ChatRequest, text: str, grammar: Grammar | None
    ) -> tuple[OutputParser, ...]:
        """text: the prompt. None for those who want special tokens, or a format from the start."""
        parsers, tools = self._context.parsers, chat.offered_tools
        is_format = grammar is not None and grammar.starts_after is None
        if chat.skip_special_tokens is False or is_format or not parsers.reads(tools):
            return ()
        return tuple(parsers.parser(prompt=text, tools=tools) for _ in range(chat.num_choices))

    def _grammar(
        self, chat: ChatRequest, prompt: tuple[int, ...], variables: dict[str, Any]
    ) -> Grammar | None:
        """The form of the answer, if the client wants one."""
        wanted = chat.wanted_format
        if wanted is None:
            return None
        # Models whose templates have this switch think unless it is off.
        has_switch = self._context.chat.reads("enable_thinking")
        may_think = (
            variables.get("enable_thinking", has_switch)
            or variables.get("thinking")
            or variables.get("reasoning_effort", "none") != "none"
        )
        return self._formats.grammar(wanted, prompt, may_think=bool(may_think))

    def _variables(self, chat: ChatRequest) -> dict[str, Any]:
        """What the client tells the chat template beside the messages."""
        formatter = self._context.chat
        variables = chat.chat_template_kwargs or {}
        formatter.check_variables(variables)
        if chat.reasoning_effort is None:
            return variables
        effort = formatter.reasoning_variables(chat.reasoning_effort)
        if not variables.keys().isdisjoint(effort):
            raise InvalidRequest(
                "reasoning_effort says what chat_template_kwargs says already; send one of them",
                param="reasoning_effort",
            )
        return variables | effort
