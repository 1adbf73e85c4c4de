"""A started request on its way to the client, streamed or whole.

Rule: what went wrong before the answer began is raised; after the first event of a stream it is
the last one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from millstream.api.openai.generate.answer import Report, WholeChoice
from millstream.api.openai.generate.answer_builder import AnswerBuilder
from millstream.api.openai.generate.usage import usage
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.request_log import CLIENT_LEFT
from millstream.errors import MillstreamError
from millstream.generation.choices import Choice, close_all, merge
from millstream.metrics.ended_request import AnswerFacts
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextDelta

UNENFORCED_HEADER = "X-Unenforced-Keywords"


class StartedAnswer:
    """The choices of one request, and what makes its answer out of them."""

    def __init__(
        self,
        choices: Sequence[Choice],
        builder: AnswerBuilder,
        *,
        report: Report,
        num_prompts: int = 1,
        unenforced: Sequence[str] = (),
    ) -> None:
        """num_prompts: each has as many choices, those of the first one first. unenforced: the
        keywords of the wanted form that are left to the model."""
        self.headers = {UNENFORCED_HEADER: ", ".join(unenforced)} if unenforced else {}
        self._choices = choices
        self._builder = builder
        self._report = report
        self._per_prompt = len(choices) // num_prompts
        self._num_generated, self._num_reasoning = 0, 0
        self._first_token: float | None = None
        self._failure: MillstreamError | None = None

    @property
    def completion_id(self) -> str:
        """The id of the answer."""
        return self._builder.completion_id

    @property
    def has_failed(self) -> bool:
        """Whether an error was the last event."""
        return self._failure is not None

    async def respond(self, http: Request, streams: Sequence[TokenStream]) -> Response:
        """The one response, or nobody's if the client leaves first. Closes the streams."""
        try:
            response = await unless_disconnected(http, self.whole())
            response.headers.update(self.headers)
            return response
        except ClientGone:
            return nobody(http)
        finally:
            close_all(streams)

    async def whole(self) -> Response:
        """The one response with everything. Raises the failure that ended a choice."""
        deltas = await self._deltas()
        if self._report.logprobs or self._report.prompt_logprobs:
            # Thousands of small objects: not on the event loop.
            return await run_in_threadpool(lambda: JSONResponse(self._body(deltas)))
        return JSONResponse(self._body(deltas))

    async def body(self) -> Any:
        """The body of that response."""
        deltas = await self._deltas()
        return await run_in_threadpool(self._body, deltas)

    async def _deltas(self) -> list[list[TextDelta]]:
        """All of each choice. Raises the failure that ended one."""
        deltas: list[list[TextDelta]] = [[] for _ in self._choices]
        async with aclosing(merge(self._choices)) as news:
            async for index, delta in news:
                self._count(delta)
                deltas[index].append(delta)
        return deltas

    def _body(self, deltas: Sequence[Sequence[TextDelta]]) -> Any:
        choices = [WholeChoice.of(one) for one in deltas]
        return self._builder.whole(choices, self._usage())

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events of the stream. A failure is its last event."""
        builder = self._builder
        num_open = len(self._choices)
        try:
            async with aclosing(merge(self._choices)) as news:
                async for index, delta in news:
                    self._count(delta)
                    running = self._usage() if self._report.running_usage else None
                    chunk = builder.chunk(index, delta, running)
                    num_open -= delta.finish_reason is not None
                    if num_open == 0:
                        chunk += builder.end(self._usage())
                    if chunk:
                        yield chunk
        except MillstreamError as error:
            close_all(choice.stream for choice in self._choices)
            yield self.fail(error)

    def fail(self, error: MillstreamError) -> bytes:
        """Notes what ended the answer. Returns the event that says so."""
        self._failure = error
        return self._builder.failure(error)

    def _count(self, delta: TextDelta) -> None:
        """Counts what is delivered; a choice may be ahead of that."""
        if not self._num_generated:
            self._first_token = time.monotonic()
        self._num_generated += len(delta.token_ids)
        self._num_reasoning += delta.num_reasoning

    def facts(self) -> AnswerFacts:
        """What is to be logged when the request has ended."""
        reasons, usage = self._builder.finish_reasons, self._usage()
        ending = None if len(reasons) == len(self._choices) else CLIENT_LEFT
        return AnswerFacts(
            completion_id=self._builder.completion_id,
            num_prompt=usage["prompt_tokens"],
            num_cached=usage["prompt_tokens_details"]["cached_tokens"],
            num_generated=self._num_generated,
            finish_reasons=[reasons[index] for index in sorted(reasons)],
            queue_seconds=self._choices[0].stream.queue_seconds,
            first_token=self._first_token if self._num_generated else None,
            ending=ending if self._failure is None else self._failure.code,
            lives=[choice.stream.life for choice in self._choices],
        )

    def _usage(self) -> dict[str, Any]:
        # A prompt counts once, however many answers it has.
        firsts = [choice.assembler for choice in self._choices[:: self._per_prompt]]
        return usage(
            num_prompt=sum(first.num_prompt for first in firsts),
            num_generated=self._num_generated,
            num_reasoning=self._num_reasoning,
            num_cached=sum(first.num_cached for first in firsts),
        )
