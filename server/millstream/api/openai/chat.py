"""POST /v1/chat/completions.

Order: body, place, prompt, engine, headers. Whatever can go wrong before the first token is an
HTTP status; after that it is one error event and no `[DONE]`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import closing

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.body import read_json
from millstream.api.context import ServerContext
from millstream.api.disconnect import ClientGone, unless_disconnected
from millstream.api.errors import error_event
from millstream.api.openai.builder import ChatStream, Identity, usage, whole_answer
from millstream.api.openai.schema import ChatRequest, parse_chat_request
from millstream.api.sse import EventStream
from millstream.core.info import EngineInfo
from millstream.core.request import Request, SamplingParams
from millstream.errors import MillstreamError
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler

log = logging.getLogger(__name__)


class ChatCompletions:
    """The endpoint. Holds no state of its own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def __call__(self, http: HttpRequest) -> Response:
        context = self._context
        body = await read_json(http, limit=context.settings.payload_limit)
        chat = parse_chat_request(body)
        stream = context.engine.open()
        try:
            assembler = await self._start(chat, stream)
        except BaseException:
            stream.close()
            raise
        log.debug(
            "request %d: %d prompt tokens, user %r", stream.id, assembler.num_prompt, chat.user
        )
        if chat.stream:
            return EventStream(
                self._events(chat, stream, assembler),
                on_end=stream.close,
                ping_seconds=context.settings.ping_seconds,
                send_timeout=context.settings.send_timeout,
            )
        with closing(stream):
            try:
                return await unless_disconnected(http, self._answer(stream, assembler))
            except ClientGone:
                # 499 is what proxies log for this; nobody is there to read it.
                return Response(status_code=499)

    async def _start(self, chat: ChatRequest, stream: TokenStream) -> TextAssembler:
        """Tokenises off the event loop and hands the request to the engine."""
        context = self._context
        info = context.engine.info
        prompt = await run_in_threadpool(
            lambda: context.chat.encode(
                [message.to_template() for message in chat.messages], max_context=info.max_context
            )
        )
        room = context.engine.check_length(num_prompt=len(prompt))
        wanted = chat.max_completion_tokens or chat.max_tokens or room
        stream.start(
            Request(
                id=stream.id,
                prompt=prompt,
                sampling=sampling_params(chat, info),
                max_tokens=min(wanted, room),
                stop_token_ids=tuple({*info.stop_token_ids, *context.stop_token_ids}),
            )
        )
        return TextAssembler(context.tokenizer, prompt=prompt, stops=chat.stops)

    async def _answer(self, stream: TokenStream, assembler: TextAssembler) -> Response:
        pieces: list[str] = []
        async for events in stream:
            delta = assembler.push(events)
            pieces.append(delta.text)
            if delta.finish_reason is not None:
                answer = whole_answer(
                    self._identity(), "".join(pieces), delta.finish_reason, _usage(assembler)
                )
                return JSONResponse(answer)
        raise AssertionError("a stream ends with a finish reason or raises")

    async def _events(
        self, chat: ChatRequest, stream: TokenStream, assembler: TextAssembler
    ) -> AsyncGenerator[bytes, None]:
        builder = ChatStream(self._identity(), include_usage=chat.include_usage)
        with closing(stream):
            opening = builder.first()
            try:
                async for events in stream:
                    delta = assembler.push(events)
                    chunk = opening + builder.chunk(delta)
                    opening = b""
                    if delta.finish_reason is not None:
                        # Freed before the last bytes go out, not after a slow client took them.
                        stream.close()
                        yield chunk + builder.end(_usage(assembler))
                        return
                    if chunk:
                        yield chunk
            except MillstreamError as error:
                yield error_event(error)

    def _identity(self) -> Identity:
        return Identity(
            completion_id=f"chatcmpl-{secrets.token_hex(16)}",
            model=self._context.settings.model_name,
            created=int(time.time()),
            fingerprint=self._context.fingerprint,
        )


def sampling_params(chat: ChatRequest, info: EngineInfo) -> SamplingParams:
    """The request's sampling, with the model's recommendations where it says nothing."""
    seed = secrets.randbits(64) if chat.seed is None else chat.seed % 2**64
    return SamplingParams(
        temperature=info.temperature if chat.temperature is None else chat.temperature,
        top_k=info.top_k if chat.top_k is None else max(chat.top_k, 0),
        top_p=info.top_p if chat.top_p is None else chat.top_p,
        seed=seed,
    )


def _usage(assembler: TextAssembler) -> dict[str, object]:
    return usage(
        num_prompt=assembler.num_prompt,
        num_generated=assembler.num_generated,
        num_cached=assembler.num_cached,
    )
