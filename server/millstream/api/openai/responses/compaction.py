"""POST /v1/responses/compact: a long conversation as what the user said, and a summary of the rest.

The model itself writes the summary. What is answered is sent as the input of the next request, in
which the summary, an item that is opaque to clients, is told to the model.
"""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from millstream.api.context import ServerContext
from millstream.api.described.route import JSON, Operation
from millstream.api.openai.generate.answer import WholeChoice
from millstream.api.openai.responses.counting import parse_part
from millstream.api.openai.responses.history import History
from millstream.api.openai.responses.resource import response_usage
from millstream.api.openai.responses.shapes import Compaction
from millstream.api.wire.disconnect import ClientGone, nobody, unless_disconnected
from millstream.api.wire.owned_names import owned_name
from millstream.api.wire.resuming import owner_of
from millstream.errors import GenerationFailed, InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_answers import ChatAnswers
from millstream.generation.choices import Choice, merge
from millstream.generation.places import Places, open_places
from millstream.generation.prompts import Prompts
from millstream.intake.responses.chat_of_response import ChatOfResponse, chat_of_response
from millstream.intake.responses.items import Item, read_items
from millstream.intake.responses.request import ResponseRequest
from millstream.intake.responses.sealed_text import encode_reasoning
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextDelta

_FIELDS = (
    "input",
    "instructions",
    "model",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
)
_ASK = (
    "This conversation is about to be shortened. Write a summary of it for whoever goes on with "
    "it: what was asked, what was found out and decided, what was done with which results, and "
    "what is still to be done. Names, numbers, paths and quotations that matter stay as they are. "
    "Write the summary only."
)
_LEAD = "This is a summary of the conversation until here, of which only my words were kept:\n\n"

COMPACT = Operation(
    path="/v1/responses/compact",
    method="POST",
    summary="A conversation made shorter: the user's messages, and a summary of the rest",
    request=ResponseRequest,
    answers={200: {JSON: Compaction}},
    errors=(404, 429, 499, 503, 504),
)


class Compactor:
    """The endpoint. Holds no state of its own."""

    def __init__(
        self, context: ServerContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        self._context = context
        self._answers = ChatAnswers(context, prompts=prompts, grammars=grammars)
        self._history = History(context.store)

    async def compact(self, http: HttpRequest) -> Response:
        """Raises InvalidRequest, Overloaded, and GenerationFailed if the model says nothing."""
        request = await self._context.read_body(http, lambda body: parse_part(body, _FIELDS))
        self._history.store_for(request, is_replayed=False)
        (stream,) = open_places(
            self._context.engine,
            Places(count=1, asked="one summary", param="input"),
            names=(owned_name(owner_of(http), http.state.request_id),),
            quota=self._context.quota_of(owner_of(http)),
        )
        if (limit := self._context.settings.request_timeout) is not None:
            stream.limit_time(limit)
        try:
            work = self._compact(request, stream, owner=owner_of(http))
            return JSONResponse(await unless_disconnected(http, work))
        except ClientGone:
            return nobody(http)
        finally:
            if stream.is_started:
                http.state.record.begin()
            stream.close()

    async def _compact(
        self, request: ResponseRequest, stream: TokenStream, *, owner: str
    ) -> dict[str, Any]:
        choice, kept = await stream.prepare(self._begin(request, stream, owner=owner))
        deltas: list[TextDelta] = []
        async with aclosing(merge([choice])) as news:
            async for _, delta in news:
                deltas.append(delta)
        said = WholeChoice.of(deltas).said.content.strip()
        if not said:
            raise GenerationFailed("the model wrote no summary")
        summary = {
            "id": f"cmp_{secrets.token_hex(16)}",
            "type": "compaction",
            "encrypted_content": encode_reasoning(_LEAD + said),
        }
        return {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*kept, summary],
            "usage": response_usage(
                num_prompt=choice.assembler.num_prompt,
                num_cached=choice.assembler.num_cached,
                num_generated=sum(len(delta.token_ids) for delta in deltas),
                num_reasoning=sum(delta.num_reasoning for delta in deltas),
            ),
        }

    async def _begin(
        self, request: ResponseRequest, stream: TokenStream, *, owner: str
    ) -> tuple[Choice, list[Item]]:
        """The answer, begun, and the items that stay."""
        before = await self._history.before(request, owner=owner)
        items = await self._history.resolved(request.items, before, owner=owner)
        everything = [*items, *read_items(_ASK)]
        asked = await self._context.workers.threads.run(
            partial(chat_of_response, request, everything, before)
        )
        try:
            started = await self._answers.start(self._limited(asked), [stream], tenant=owner)
        except InvalidRequest as error:
            raise asked.in_words_of_responses(error) from error
        kept = [item for item in [*before, *items] if _is_users(item)]
        return started.choices[0], kept

    def _limited(self, asked: ChatOfResponse) -> Any:
        """The chat request; its answer leaves room for what will be said after it."""
        most = max(self._context.engine.info.max_context // 8, 1)
        return asked.chat.model_copy(update={"max_completion_tokens": most})


def _is_users(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] == "user")
