"""POST /invocations and POST /vertex: how SageMaker and Vertex AI ask."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.context import ServerContext
from millstream.api.described.route import EVENTS, JSON, Operation
from millstream.api.openai.chat.endpoint import ChatCompletions
from millstream.api.openai.chat.shapes import ChatCompletion, ChatCompletionChunk
from millstream.api.openai.completions.endpoint import Completions
from millstream.api.openai.completions.shapes import Completion, CompletionChunk
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.api.tgi.generation import ERRORS, Generations
from millstream.api.tgi.shapes import Generated, Predictions, StreamedGeneration
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.error_bodies import ErrorBody
from millstream.api.wire.owned_names import owned_name
from millstream.api.wire.resuming import owner_of
from millstream.api.wire.tgi_errors import TgiErrorBody
from millstream.errors import InvalidRequest
from millstream.generation.choices import close_all
from millstream.generation.places import Places, open_places
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.completion import CompletionRequest
from millstream.intake.tgi.instances import (
    VertexBody,
    in_instance,
    parse_invocation,
    parse_vertex_request,
)
from millstream.intake.tgi.parameters import GenerateBody
from millstream.intake.tgi.request import TextGeneration
from millstream.metrics.ended_request import AnswerFacts
from millstream.runtime.stream import TokenStream

INVOCATIONS = Operation(
    path="/invocations",
    method="POST",
    summary="SageMaker: the body of POST /, of a chat or of a text completion",
    description="A stream of a chat or a completion ends with `[DONE]`, one of TGI does not.",
    request=GenerateBody | ChatRequest | CompletionRequest,
    answers={
        200: {
            JSON: list[Generated] | ChatCompletion | Completion,
            EVENTS: StreamedGeneration | ChatCompletionChunk | CompletionChunk,
        }
    },
    errors=ERRORS,
    failure=TgiErrorBody | ErrorBody,
    has_end_mark=False,
)
VERTEX = Operation(
    path="/vertex",
    method="POST",
    summary="Vertex AI: a text for each of several requests",
    request=VertexBody,
    answers={200: {JSON: Predictions}},
    errors=ERRORS,
    failure=TgiErrorBody,
)


class Invocations:
    """SageMaker's endpoint."""

    def __init__(
        self,
        context: ServerContext,
        *,
        generations: Generations,
        chat: ChatCompletions,
        completions: Completions,
    ) -> None:
        self._context = context
        self._generations = generations
        self._chat = chat
        self._completions = completions

    async def invoke(self, http: HttpRequest) -> Response:
        """Raises InvalidRequest."""
        fields = await self._context.read_body(http, parse_invocation)
        if isinstance(fields, TextGeneration):
            return await self._generations.answer(http, fields)
        if isinstance(fields, ChatRequest):
            return await self._chat.answer(http, fields)
        return await self._completions.answer(http, fields)


class VertexPredictions:
    """Vertex AI's endpoint: all requests get their places at once, or none."""

    def __init__(
        self, context: ServerContext, *, generations: Generations, chat: ChatCompletions
    ) -> None:
        self._context = context
        self._generations = generations
        self._chat = chat

    async def predict(self, http: HttpRequest) -> Response:
        """Raises InvalidRequest, and the failure that ended an answer."""
        instances = await self._context.read_body(http, parse_vertex_request)
        count = sum(instance.num_choices for instance in instances)
        places = Places(count=count, asked=f"instances ask for {count}", param="instances")
        owner = owner_of(http)
        names, quota = (owned_name(owner, http.state.request_id),), self._context.quota_of(owner)
        streams = open_places(self._context.engine, places, names=names, quota=quota)
        try:
            texts = await unless_disconnected(http, self._predict(http, instances, streams))
        except ClientGone:
            return nobody(http)
        finally:
            close_all(streams)
        return JSONResponse(Predictions(predictions=texts))

    async def _predict(
        self,
        http: HttpRequest,
        instances: Sequence[TextGeneration | ChatRequest],
        streams: Sequence[TokenStream],
    ) -> list[str]:
        answers: list[StartedAnswer] = []
        http.state.record.answer = lambda: _facts(answers)
        taken = 0
        for number, instance in enumerate(instances):
            own = streams[taken : taken + instance.num_choices]
            taken += instance.num_choices
            try:
                answers.append(await self._begin(http, instance, own))
            except InvalidRequest as error:
                raise in_instance(error, number) from error
        http.state.record.begin()
        making = [asyncio.ensure_future(answer.body()) for answer in answers]
        try:
            return [_text(body) for body in await asyncio.gather(*making)]
        finally:
            for task in making:
                task.cancel()
            await asyncio.gather(*making, return_exceptions=True)

    async def _begin(
        self,
        http: HttpRequest,
        instance: TextGeneration | ChatRequest,
        streams: Sequence[TokenStream],
    ) -> StartedAnswer:
        if isinstance(instance, TextGeneration):
            return await self._generations.begin(
                instance, streams, self._generations.identity(http)
            )
        return await self._chat.begin(instance, streams, self._chat.identity(http))


def _text(body: Any) -> str:
    """What an answer says. A chat that calls a tool may say nothing."""
    if "generated_text" in body:
        return str(body["generated_text"])
    return body["choices"][0]["message"]["content"] or ""


def _facts(answers: Sequence[StartedAnswer]) -> AnswerFacts:
    """What all answers came to."""
    facts = [answer.facts() for answer in answers]
    return AnswerFacts(
        completion_id=",".join(each.completion_id for each in facts[:1]) or "-",
        num_prompt=sum(each.num_prompt for each in facts),
        num_cached=sum(each.num_cached for each in facts),
        num_generated=sum(each.num_generated for each in facts),
        finish_reasons=[reason for each in facts for reason in each.finish_reasons],
        queue_seconds=max((each.queue_seconds or 0.0 for each in facts), default=None),
        first_token=min((each.first_token for each in facts if each.first_token), default=None),
        ending=next((each.ending for each in facts if each.ending), None),
        lives=[life for each in facts for life in each.lives],
    )
