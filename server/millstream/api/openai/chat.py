"""POST /v1/chat/completions.

Order: body, places, prompt, engine, headers. Whatever can go wrong before the first token is an
HTTP status; after that it is one error event and no `[DONE]`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.body import read_json
from millstream.api.choices import Choice, close_all, merge
from millstream.api.context import ServerContext
from millstream.api.errors import error_event
from millstream.api.openai.answer import Identity, Report, WholeChoice, usage, whole_answer
from millstream.api.openai.chunks import ChatStream
from millstream.api.openai.endpoint import identity_of, open_places, respond, time_limit
from millstream.api.openai.preparation import Preparation, Prepared
from millstream.api.openai.schema import ChatRequest, parse_chat_request
from millstream.api.openai.schema.answers import ChatCompletion, ChatCompletionChunk
from millstream.api.operation import EVENTS, JSON, Operation
from millstream.errors import MillstreamError
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.vocabulary import Vocabulary

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
        completion_id = f"chatcmpl-{secrets.token_hex(16)}"
        streams = open_places(
            context.engine,
            chat.num_choices,
            names=(completion_id, http.state.request_id),
            param="n",
            asked=f"n is {chat.num_choices}",
        )
        starting = self._start(chat, streams, completion_id)
        return await respond(
            http, context.settings, streams, starting, is_streamed=bool(chat.stream)
        )

    async def _start(
        self, chat: ChatRequest, streams: Sequence[TokenStream], completion_id: str
    ) -> Answer:
        """Tokenises off the event loop and hands the requests to the engine."""
        prepared = await run_in_threadpool(self._preparation.prepare, chat)
        timeout = time_limit(chat, self._context.settings)
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
        return Answer(
            identity_of(completion_id, self._context),
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
            stop_token_ids=chat.stop_token_ids or (),
        )


class Builder(Protocol):
    """Makes the events of one request out of the deltas of its choices."""

    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes: ...

    def end(self, usage: dict[str, Any]) -> bytes: ...


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

    def _builder(self) -> Builder:
        return ChatStream(
            self._identity,
            report=self._report,
            vocabulary=self._vocabulary,
            prompt=self._prompt,
        )

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events of the stream. A failure is its last event."""
        builder = self._builder()
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
        is_tool_named=bool(chat.offered_tools) and chat.is_tool_named,
    )
