"""POST /v1/responses/input_tokens: how long the prompt of a response would be."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.openai.responses.history import History
from millstream.api.openai.responses.shapes import InputTokens
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.resuming import owner_of
from millstream.errors import InvalidRequest
from millstream.generation.prompts import Prompts
from millstream.intake.known_fields import unknown_field
from millstream.intake.responses.chat_of_response import chat_of_response
from millstream.intake.responses.request import ResponseRequest, parse_response_request

_MAX_AT_ONCE = 2
_FIELDS = (
    "conversation",
    "input",
    "instructions",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
)
"""Those of a response's fields that its prompt depends on, and that SDKs send with them."""

COUNT_INPUT_TOKENS = Operation(
    path="/v1/responses/input_tokens",
    method="POST",
    summary="How many tokens the prompt of a response would have",
    request=ResponseRequest,
    answers={200: {JSON: InputTokens}},
    errors=(404, 503),
)


class InputCounting:
    """The endpoint. Nothing is generated, so no place is taken; a few count at a time."""

    def __init__(self, context: ServerContext, *, prompts: Prompts) -> None:
        self._context = context
        self._prompts = prompts
        self._history = History(context.store)
        self._turns = asyncio.Semaphore(_MAX_AT_ONCE)

    async def count(self, http: HttpRequest) -> Response:
        request = await self._context.read_body(http, _parse)
        try:
            number = await unless_disconnected(http, self._count(request, owner=owner_of(http)))
        except ClientGone:
            return nobody(http)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": number})

    async def _count(self, request: ResponseRequest, *, owner: str) -> int:
        self._history.store_for(request, is_replayed=False)
        async with self._turns:
            before = await self._history.before(request, owner=owner)
            items = await self._history.resolved(request.items, before, owner=owner)
            run = self._context.workers.threads.run
            asked = await run(partial(chat_of_response, request, items, before))
            try:
                prompt = await run(partial(self._prompts.prompt, asked.chat, max_context=None))
            except InvalidRequest as error:
                raise asked.in_words_of_responses(error) from error
        return len(prompt.token_ids)


def _parse(body: dict[str, Any]) -> ResponseRequest:
    return parse_part(body, _FIELDS)


def parse_part(body: dict[str, Any], fields: tuple[str, ...]) -> ResponseRequest:
    """A request that may have only some of a response's fields. Raises InvalidRequest."""
    for name in body:
        if name not in fields:
            raise unknown_field(name)
    return parse_response_request(body)
