"""Tokens in TGI's shape: what POST /tokenize answers to `inputs`, and POST /chat_tokenize."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from tokenizers import Tokenizer

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.tgi.shapes import ChatTokens
from millstream.api.tgi.shapes import PlacedToken as ShownToken
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.tgi_errors import TgiErrorBody
from millstream.generation.prompts import Prompts
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.intake.tgi.request import parse_compatible_request
from millstream.text.placed_tokens import placed_tokens

CHAT_TOKENIZE = Operation(
    path="/chat_tokenize",
    method="POST",
    summary="TGI: the prompt of a conversation, and its tokens",
    request=ChatRequest,
    answers={200: {JSON: ChatTokens}},
    errors=(422, 503),
    failure=TgiErrorBody,
)

_MAX_THREADS = 2  # of those in workers/


def tokens_of_inputs(body: dict[str, Any], tokenizer: Tokenizer) -> list[ShownToken]:
    """The tokens that a body with `inputs` is computed from. Raises InvalidRequest."""
    fields = parse_compatible_request(body)
    return _shown(
        tokenizer,
        fields.inputs,
        param="inputs",
        add_special_tokens=True,
        keep_last=fields.truncate,
    )


class ChatTokenization:
    """The endpoint."""

    def __init__(self, context: ServerContext, *, prompts: Prompts) -> None:
        self._context = context
        self._prompts = prompts
        self._turns = asyncio.Semaphore(_MAX_THREADS)

    async def tokenize(self, http: Request) -> Response:
        """Raises InvalidRequest."""
        workers = self._context.workers
        chat = await self._context.read_body(http, parse_chat_request)

        async def in_turn() -> ChatTokens:
            async with self._turns:
                return await workers.threads.run(partial(self._tokens, chat))

        try:
            return write_tokens(await unless_disconnected(http, in_turn()))
        except ClientGone:
            return nobody(http)

    def _tokens(self, chat: ChatRequest) -> ChatTokens:
        text = self._prompts.prompt(chat, max_context=None).text
        shown = _shown(self._context.tokenizer, text, param="messages")
        return {"tokenize_response": shown, "templated_text": text}


def write_tokens(answer: ChatTokens | list[ShownToken]) -> Response:
    """The response with this body, which may have hundreds of thousands of tokens."""
    return Response(msgspec.json.encode(answer), media_type=JSON)


def _shown(tokenizer: Tokenizer, text: str, **options: Any) -> list[ShownToken]:
    return [
        {"id": token_id, "text": text[start:stop], "start": start, "stop": stop}
        for token_id, start, stop in placed_tokens(tokenizer, text, **options)
    ]
