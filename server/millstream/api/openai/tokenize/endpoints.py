"""POST /tokenize and POST /detokenize: texts and conversations as the model reads them.

Rules: a conversation gives exactly the prompt that it has in /v1/chat/completions; nothing is cut,
so that a client can count what is too long. The work, seconds for the longest body, is done in few
of the worker threads, so that the others are there for those who generate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.openai.tokenize.body import (
    ConversationBody,
    DetokenizeRequest,
    TokenizeText,
    parse_detokenize_request,
    parse_tokenize_request,
)
from millstream.api.tgi.shapes import PlacedToken
from millstream.api.tgi.tokens import tokens_of_inputs, write_tokens
from millstream.api.wire.closed_shapes import closed
from millstream.api.wire.disconnect import ClientGone, unless_disconnected
from millstream.api.wire.error_bodies import ErrorBody
from millstream.api.wire.tgi_errors import TgiErrorBody, mark_tgi
from millstream.core.status import EngineInfo
from millstream.errors import InvalidRequest
from millstream.generation.prompts import Prompts
from millstream.intake.tgi.parameters import GenerateBody
from millstream.text.encoding import decode, encode

Work = Callable[[dict[str, Any], EngineInfo], Response]

_MAX_THREADS = 2  # of those in workers/


@closed
class Tokenized(TypedDict):
    """token_strs: null unless asked for. max_model_len: tokens of prompt and answer together."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


@closed
class Detokenized(TypedDict):
    prompt: str


TOKENIZE = Operation(
    path="/tokenize",
    method="POST",
    summary="The tokens of a text, or of the prompt of a conversation",
    description="A body with `inputs` is TGI's, and so is the answer to it.",
    request=TokenizeText | ConversationBody | GenerateBody,
    answers={200: {JSON: Tokenized | list[PlacedToken]}},
    errors=(422, 503),
    failure=ErrorBody | TgiErrorBody,
)
DETOKENIZE = Operation(
    path="/detokenize",
    method="POST",
    summary="The text of tokens",
    request=DetokenizeRequest,
    answers={200: {JSON: Detokenized}},
    errors=(503,),
)


class Tokenization:
    """The endpoints."""

    def __init__(self, context: ServerContext, *, prompts: Prompts) -> None:
        self._context = context
        self._prompts = prompts
        self._turns = asyncio.Semaphore(_MAX_THREADS)

    async def tokenize(self, http: Request) -> Response:
        """Raises EngineUnavailable while the model, whose limits are told, is loading."""

        def work(body: dict[str, Any], info: EngineInfo) -> Response:
            if "inputs" not in body:
                return self._tokenize(body, info)
            mark_tgi(http.scope)
            return write_tokens(tokens_of_inputs(body, self._context.tokenizer))

        return await self._answer(http, work)

    async def detokenize(self, http: Request) -> Response:
        """Raises InvalidRequest for ids that the model does not have."""
        return await self._answer(http, self._detokenize)

    async def _answer(self, http: Request, work: Work) -> Response:
        body: dict[str, Any] = await self._context.read_body(http, dict)
        info = self._context.engine.info
        try:
            return await unless_disconnected(http, self._in_turn(work, body, info))
        except ClientGone:
            return Response(status_code=499)

    async def _in_turn(self, work: Work, body: dict[str, Any], info: EngineInfo) -> Response:
        async with self._turns:
            return await self._context.workers.threads.run(partial(work, body, info))

    def _tokenize(self, body: dict[str, Any], info: EngineInfo) -> Response:
        wanted, tokenizer = parse_tokenize_request(body), self._context.tokenizer
        if isinstance(wanted, TokenizeText):
            is_framed = wanted.add_special_tokens is not False
            tokens: list[int] = encode(
                tokenizer, wanted.prompt, param="prompt", add_special_tokens=is_framed
            ).ids
        else:
            tokens = list(self._prompts.prompt(wanted.chat, max_context=None).token_ids)
        texts = [tokenizer.id_to_token(token) or "" for token in tokens]
        return write_json(
            Tokenized(
                count=len(tokens),
                max_model_len=info.max_context,
                tokens=tokens,
                token_strs=texts if wanted.return_token_strs else None,
            )
        )

    def _detokenize(self, body: dict[str, Any], info: EngineInfo) -> Response:
        tokens = parse_detokenize_request(body).tokens
        if (largest := max(tokens, default=0)) >= info.vocab_size:
            raise InvalidRequest(
                f"tokens: {largest} is not a token of this model, which has {info.vocab_size}",
                param="tokens",
            )
        return write_json(Detokenized(prompt=decode(self._context.tokenizer, tokens)))


def write_json(answer: Tokenized | Detokenized) -> Response:
    """The response with this body, which may have millions of numbers."""
    # Not JSONResponse: millions of numbers are written ten times faster so.
    return Response(msgspec.json.encode(answer), media_type=JSON)
