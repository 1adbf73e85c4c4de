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
from millstream.api.openai.generate.base_endpoint import Endpoint
from millstream.api.openai.generate.resumption import delete_operation, resume_operation
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_answers import ChatAnswers
from millstream.generation.contract import is_tool_named
from millstream.generation.prompts import Prompts
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.runtime.stream import TokenStream

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
RESUME_CHAT = resume_operation("/v1/chat/completions/{id}", ChatCompletionChunk)
DELETE_CHAT = delete_operation("/v1/chat/completions/{id}")


class ChatCompletions(Endpoint[ChatRequest]):
    """The endpoint. Holds no state of its own."""

    id_prefix = "chatcmpl-"

    def __init__(
        self, context: ServerContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        super().__init__(context)
        self._answers = ChatAnswers(context, prompts=prompts, grammars=grammars)

    def _parse(self, body: dict[str, Any]) -> ChatRequest:
        return parse_chat_request(body)

    async def _start(
        self, chat: ChatRequest, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        started = await self._answers.start(chat, streams, tenant=identity.tenant)
        prepared, choices = started.prepared, started.choices
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
        report = report_of(chat)
        builder = ChatBuilder(
            identity,
            report=report,
            vocabulary=self._context.vocabulary,
            prompt=prepared.prompt,
            prompt_scores=choices[0].assembler.prompt_logprobs,
        )
        return StartedAnswer(choices, builder, report=report, unenforced=prepared.unenforced)


def report_of(chat: ChatRequest) -> Report:
    """What the client wants to read beside the text."""
    return Report(
        logprobs=bool(chat.logprobs),
        prompt_logprobs=chat.prompt_logprobs is not None,
        token_ids=bool(chat.return_token_ids),
        usage=chat.include_usage,
        running_usage=chat.include_running_usage,
        hides_reasoning=chat.include_reasoning is False,
        is_tool_named=is_tool_named(chat),
    )
