"""POST /v1/chat/completions.

Order: body, places, prompt, engine, headers. Whatever can go wrong before the first token is an
HTTP status; after that it is one error event and no `[DONE]`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.body import read_json
from millstream.api.choices import Choice, close_all, merge
from millstream.api.context import ServerContext
from millstream.api.disconnect import ClientGone, unless_disconnected
from millstream.api.errors import error_event
from millstream.api.openai.answer import Identity, Report, WholeChoice, usage, whole_answer
from millstream.api.openai.chunks import ChatStream
from millstream.api.openai.preparation import Preparation, Prepared
from millstream.api.openai.schema import ChatRequest, parse_chat_request
from millstream.api.sse import EventStream
from millstream.errors import InvalidRequest, MillstreamError
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.vocabulary import Vocabulary

log = logging.getLogger(__name__)


class ChatCompletions:
    """The endpoint. Holds no state of its own."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._vocabulary = Vocabulary(context.tokenizer)
        self._preparation = Preparation(context, self._vocabulary)

    async def __call__(self, http: HttpRequest) -> Response:
        context = self._context
        body = await read_json(http, limit=context.settings.payload_limit)
        chat = parse_chat_request(body)
        streams = self._open(chat)
        try:
            answer = await self._start(chat, streams)
        except BaseException:
            close_all(streams)
            raise
        if chat.stream:
            return EventStream(
                answer.events(),
                on_end=lambda: close_all(streams),
                ping_seconds=context.settings.ping_seconds,
                send_timeout=context.settings.send_timeout,
            )
        try:
            return await unless_disconnected(http, answer.whole())
        except ClientGone:
            # 499 is what proxies log for this; nobody is there to read it.
            return Response(status_code=499)
        finally:
            close_all(streams)

    def _open(self, chat: ChatRequest) -> list[TokenStream]:
        """A place for each answer, all or none."""
        engine = self._context.engine
        if chat.num_choices > engine.max_open:
            raise InvalidRequest(
                f"n is {chat.num_choices}, more than the {engine.max_open} requests this server "
                "can hold",
                param="n",
            )
        return engine.open_many(chat.num_choices)

    async def _start(self, chat: ChatRequest, streams: Sequence[TokenStream]) -> Answer:
        """Tokenises off the event loop and hands the requests to the engine."""
        prepared = await run_in_threadpool(self._preparation.prepare, chat)
        timeout = self._timeout(chat)
        choices = []
        for index, stream in enumerate(streams):
            follows = streams[0].id if index else None
            stream.start(prepared.request(stream.id, index, follows=follows), timeout=timeout)
            choices.append(
                Choice(
                    stream,
                    self._assembler(chat, prepared),
                    parser=prepared.parsers[index] if prepared.parsers else None,
                    max_calls=1 if chat.parallel_tool_calls is False else None,
                )
            )
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
        identity = Identity(
            completion_id=f"chatcmpl-{secrets.token_hex(16)}",
            model=self._context.settings.model_name,
            created=int(time.time()),
            fingerprint=self._context.fingerprint,
        )
        return Answer(
            identity,
            choices,
            report=report_of(chat),
            vocabulary=self._vocabulary,
            prompt=prepared.prompt,
        )

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
            vocabulary=self._vocabulary if chat.logprobs else None,
        )

    def _timeout(self, chat: ChatRequest) -> float | None:
        limits = (chat.timeout, self._context.settings.request_timeout)
        return min((limit for limit in limits if limit is not None), default=None)


class Answer:
    """A started request on its way to the client, streamed or whole."""

    def __init__(
        self,
        identity: Identity,
        choices: Sequence[Choice],
        *,
        report: Report,
        vocabulary: Vocabulary,
        prompt: Sequence[int],
    ) -> None:
        self._identity = identity
        self._choices = choices
        self._report = report
        self._vocabulary = vocabulary
        self._prompt = prompt

    async def whole(self) -> Response:
        """The one response with everything. Raises the failure that ended a choice."""
        deltas: list[list[TextDelta]] = [[] for _ in self._choices]
        async with aclosing(merge(self._choices)) as news:
            async for index, delta in news:
                deltas[index].append(delta)
        if self._report.logprobs or self._report.prompt_logprobs:
            # Thousands of small objects: not on the event loop.
            return await run_in_threadpool(self._body, deltas)
        return self._body(deltas)

    def _body(self, deltas: Sequence[Sequence[TextDelta]]) -> Response:
        answer = whole_answer(
            self._identity,
            [WholeChoice.of(one) for one in deltas],
            self._usage(),
            report=self._report,
            vocabulary=self._vocabulary,
            prompt=self._prompt,
            prompt_scores=self._choices[0].assembler.prompt_logprobs,
        )
        return JSONResponse(answer)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events of the stream. A failure is its last event."""
        builder = ChatStream(
            self._identity,
            report=self._report,
            vocabulary=self._vocabulary,
            prompt=self._prompt,
        )
        num_open = len(self._choices)
        try:
            async with aclosing(merge(self._choices)) as news:
                async for index, delta in news:
                    running = self._usage() if self._report.running_usage else None
                    chunk = builder.chunk(index, delta, running)
                    num_open -= delta.finish_reason is not None
                    if num_open == 0:
                        chunk += builder.end(self._usage())
                    if chunk:
                        yield chunk
        except MillstreamError as error:
            close_all(choice.stream for choice in self._choices)
            yield error_event(error)

    def _usage(self) -> dict[str, object]:
        assemblers = [choice.assembler for choice in self._choices]
        return usage(
            num_prompt=assemblers[0].num_prompt,
            num_generated=sum(assembler.num_generated for assembler in assemblers),
            num_cached=assemblers[0].num_cached,
        )


def report_of(chat: ChatRequest) -> Report:
    """What the client wants to read beside the text."""
    return Report(
        logprobs=bool(chat.logprobs),
        prompt_logprobs=chat.prompt_logprobs is not None,
        token_ids=bool(chat.return_token_ids),
        usage=chat.include_usage,
        running_usage=chat.include_running_usage,
    )
