"""POST /v1/chat/completions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.chat.builder import ChatBuilder
from millstream.api.openai.chat.shapes import ChatCompletion, ChatCompletionChunk
from millstream.api.openai.generate.answer import Identity, Report
from millstream.api.openai.generate.base_endpoint import Endpoint, Places, start_all
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_preparation import Preparation, Prepared
from millstream.generation.choices import Choice
from millstream.generation.prompts import Prompts
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler

log = logging.getLogger(__name__)

CHAT = Operation(
    path="/v1/chat/completions",
    method="POST",
    summary="An answer to a conversation, whole or as a stream",
    description="With `stream`, the answer is events; the last is `[DONE]`, or one with an error.",
    request=ChatRequest,
    answers={200: {JSON: ChatCompletion, EVENTS: ChatCompletionChunk}},
    errors=(429, 499, 503, 504),
)


class ChatCompletions(Endpoint[ChatRequest]):
    """The endpoint. Holds no state of its own."""

    id_prefix = "chatcmpl"

    def __init__(
        self, context: ServerContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        super().__init__(context)
        self._preparation = Preparation(context, prompts=prompts, grammars=grammars)

    def _parse(self, body: dict[str, Any]) -> ChatRequest:
        return parse_chat_request(body)

    def _places(self, chat: ChatRequest) -> Places:
        return Places(count=chat.num_choices, asked=f"n is {chat.num_choices}", param="n")

    async def _start(
        self, chat: ChatRequest, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        prepared = await self._preparation.prepare(chat)
        start_all(streams, [prepared.first], identity)
        log.debug(
            "request %d: %d prompt tokens, user %r, safety_identifier %r, prompt_cache_key %r, "
            "metadata %r",
            streams[0].id,
            len(prepared.prompt),
            chat.user,
            chat.safety_identifier,
            chat.prompt_cache_key,
            chat.metadata,
        )
        choices = [
            Choice(
                stream,
                self._assembler(chat, prepared),
                parser=prepared.parsers[index] if prepared.parsers else None,
                max_calls=1 if chat.parallel_tool_calls is False else None,
            )
            for index, stream in enumerate(streams)
        ]
        report = report_of(chat)
        builder = ChatBuilder(
            identity,
            report=report,
            vocabulary=self._context.vocabulary,
            prompt=prepared.prompt,
            prompt_scores=choices[0].assembler.prompt_logprobs,
        )
        return StartedAnswer(choices, builder, report=report, unenforced=prepared.unenforced)

    def _assembler(self, chat: ChatRequest, prepared: Prepared) -> TextAssembler:
        # Where special tokens are markers, the parser reads them, and drops all others.
        is_marked = bool(prepared.parsers and self._context.parsers.visible)
        return TextAssembler(
            self._context.tokenizer,
            prompt=prepared.prompt,
            stops=chat.stops,
            min_tokens=chat.min_tokens or 0,
            include_stop=bool(chat.include_stop_str_in_output),
            skip_special_tokens=chat.skip_special_tokens is not False and not is_marked,
            vocabulary=self._context.vocabulary if chat.logprobs else None,
            stop_token_ids=chat.stop_token_ids or (),
        )


def report_of(chat: ChatRequest) -> Report:
    """What the client wants to read beside the text."""
    return Report(
        logprobs=bool(chat.logprobs),
        prompt_logprobs=chat.prompt_logprobs is not None,
        token_ids=bool(chat.return_token_ids),
        usage=chat.include_usage,
        running_usage=chat.include_running_usage,
        hides_reasoning=chat.include_reasoning is False,
        is_tool_named=bool(chat.offered_tools) and chat.is_tool_named,
    )
