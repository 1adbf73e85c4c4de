"""POST /v1/messages, and POST /v1/messages/count_tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from millstream.api.anthropic.builder import MessageBuilder
from millstream.api.anthropic.shapes import MadeMessage, MessageEvent, TokenCount
from millstream.api.anthropic.silent_builder import SilentMessageBuilder
from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.generate.answer import Identity, Report
from millstream.api.openai.generate.base_endpoint import Endpoint
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.api.wire.disconnect import ClientGone, unless_disconnected
from millstream.api.wire.messages_errors import MessagesErrorBody
from millstream.api.wire.request_log import CLIENT_LEFT
from millstream.errors import InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_answers import ChatAnswers
from millstream.generation.prompts import Prompts
from millstream.intake.messages.message_fields import CountedFields, MessageFields
from millstream.intake.messages.request import (
    MessagesChat,
    parse_count_request,
    parse_messages_request,
)
from millstream.runtime.stream import TokenStream

MESSAGES = Operation(
    path="/v1/messages",
    method="POST",
    summary="Anthropic's API: an answer to a conversation, whole or as a stream",
    description="With `stream`, the answer is events with names; the last is `message_stop`, or "
    "`error`.",
    request=MessageFields,
    answers={200: {JSON: MadeMessage, EVENTS: MessageEvent}},
    errors=(429, 499, 503, 504, 529),
    failure=MessagesErrorBody,
    has_end_mark=False,
)
COUNT_TOKENS = Operation(
    path="/v1/messages/count_tokens",
    method="POST",
    summary="Anthropic's API: the tokens of a conversation's prompt",
    request=CountedFields,
    answers={200: {JSON: TokenCount}},
    failure=MessagesErrorBody,
)

_MAX_THREADS = 2  # of those in workers/


class Messages(Endpoint[MessagesChat]):
    """The endpoint. Holds no state of its own."""

    id_prefix = "msg_"
    ping = '{"type": "ping"}'
    is_resumable = False

    def __init__(
        self, context: ServerContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        super().__init__(context)
        self._answers = ChatAnswers(context, prompts=prompts, grammars=grammars)

    def _parse(self, body: dict[str, Any]) -> MessagesChat:
        return parse_messages_request(body)

    async def _start(
        self, fields: MessagesChat, streams: Sequence[TokenStream], identity: Identity
    ) -> StartedAnswer:
        try:
            started = await self._answers.start(fields, streams, tenant=identity.tenant)
        except InvalidRequest as error:
            fields.reword(error)
            raise
        kind = SilentMessageBuilder if fields.is_silent else MessageBuilder
        builder = kind(
            identity,
            vocabulary=self._context.vocabulary,
            assembler=started.choices[0].assembler,
            hides_thoughts=fields.hides_thoughts,
        )
        return StartedAnswer(
            started.choices, builder, report=Report(), unenforced=started.prepared.unenforced
        )


class TokenCounts:
    """The endpoint that counts. Long conversations take seconds, so they wait for each other."""

    def __init__(self, context: ServerContext, *, prompts: Prompts) -> None:
        self._context = context
        self._prompts = prompts
        self._turns = asyncio.Semaphore(_MAX_THREADS)

    async def count(self, http: Request) -> Response:
        """Raises InvalidRequest."""
        context = self._context
        chat = await context.read_body(http, parse_count_request)
        try:
            return await unless_disconnected(http, self._count(chat))
        except ClientGone:
            http.state.record.ending = CLIENT_LEFT
            return Response(status_code=499)

    async def _count(self, chat: MessagesChat) -> Response:
        work = partial(self._prompts.prompt, chat, max_context=None)
        try:
            async with self._turns:
                prompt = await self._context.workers.threads.run(work)
        except InvalidRequest as error:
            chat.reword(error)
            raise
        return JSONResponse({"input_tokens": len(prompt.token_ids)})
