"""From a checked request to a response that is being made, whoever asked and over what wire."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from millstream.answering.archive import StoredEvents
from millstream.answering.event_log import EventLog, Readers
from millstream.answering.runs import Run
from millstream.api.context import ServerContext
from millstream.api.openai.responses.answer import ResponseAnswer
from millstream.api.openai.responses.builder import OutputBuilder
from millstream.api.openai.responses.history import History
from millstream.api.openai.responses.recent import RecentResponses
from millstream.api.openai.responses.resource import ResponseResource
from millstream.api.openai.responses.timing import AnswerTiming
from millstream.errors import ContextTooLong, InvalidRequest
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_answers import ChatAnswers, StartedChat
from millstream.generation.places import Places, open_places
from millstream.generation.prompts import Prompts
from millstream.intake.responses.chat_of_response import ChatOfResponse, chat_of_response
from millstream.intake.responses.items import Item
from millstream.intake.responses.request import ResponseRequest
from millstream.intake.responses.truncation import num_turns
from millstream.runtime.stream import TokenStream
from millstream.store.records import StoredItem, StoredResponse
from millstream.store.store import Store


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and how. owner: whose the response is. names: what else it can be cancelled by.

    is_replayed: its events can be read again, and it goes on when its reader leaves.
    has_reader: somebody reads its events from the first one on. recent: what else it can go on
    from. wants_answer: else only the prompt is computed, for the answers that will follow.
    chat_id: the chat of which the response becomes the leaf. said: what an answer that was cut has
    said, in which this one goes on.
    """

    owner: str
    names: Collection[str]
    is_replayed: bool
    has_reader: bool
    recent: RecentResponses | None = None
    wants_answer: bool = True
    chat_id: str | None = None
    said: Sequence[Item] = ()

    def is_queued(self, request: ResponseRequest) -> bool:
        """Whether it begins by waiting; one that has said something is in progress."""
        return bool(request.background) and not self.said


@dataclass(frozen=True, slots=True)
class Place:
    """What a response has before it is begun. store: where it will be kept, if it will. timing: of
    which the clock runs."""

    response_id: str
    stream: TokenStream
    store: Store | None
    timing: AnswerTiming


@dataclass(frozen=True, slots=True)
class Begun:
    """What the engine was asked, and with what it answers. items: the whole conversation."""

    items: Sequence[Item]
    asked: ChatOfResponse
    started: StartedChat
    resource: ResponseResource


@dataclass(frozen=True, slots=True)
class BegunResponse:
    """A response that is being made. unenforced: what of the wanted form is left to the model.
    items: the conversation that it answers."""

    run: Run
    answer: ResponseAnswer
    unenforced: tuple[str, ...]
    items: Sequence[Item]


class ResponseMaker:
    """Begins responses of one model."""

    def __init__(
        self, context: ServerContext, *, prompts: Prompts, grammars: AnswerGrammars
    ) -> None:
        self._context = context
        self._prompts = prompts
        self._answers = ChatAnswers(context, prompts=prompts, grammars=grammars)
        self._history = History(context.store)

    def take_place(self, request: ResponseRequest, asker: Asker) -> Place:
        """A place for the response. Raises Overloaded at once, and InvalidRequest for what cannot
        be had on this server."""
        store = self._history.store_for(request, is_replayed=asker.is_replayed, recent=asker.recent)
        response_id = self._context.answer_id("resp_", 48)
        (stream,) = open_places(
            self._context.engine,
            Places(count=1, asked="one response", param="input"),
            names=(response_id, *asker.names),
            quota=self._context.quota_of(asker.owner),
        )
        limits = (request.timeout, self._context.settings.request_timeout)
        given = [limit for limit in limits if limit is not None]
        if given:
            stream.limit_time(min(given))
        return Place(response_id, stream, store, AnswerTiming(stream))

    async def begin(self, request: ResponseRequest, asker: Asker, place: Place) -> BegunResponse:
        """Prepares the response and lets it be made. The place is the response's from then on;
        if this raises, it is closed."""
        try:
            return await place.stream.prepare(self._begin(request, asker, place))
        except BaseException:
            place.stream.close()
            raise

    async def _begin(self, request: ResponseRequest, asker: Asker, place: Place) -> BegunResponse:
        before = await self._history.before(request, owner=asker.owner, recent=asker.recent)
        items = await self._history.resolved(request.items, before, owner=asker.owner)
        asked = await self._fitting(request, before, items, said=asker.said)
        try:
            chat = asked.chat if asker.wants_answer else asked.shortest_chat
            started = await self._answers.start(chat, [place.stream], tenant=asker.owner)
        except InvalidRequest as error:
            raise asked.in_words_of_responses(error) from error
        resource = self._resource(request, place)
        if place.store is not None:
            await place.store.begin(
                _row(request, resource, asker),
                [StoredItem(id=item["id"], data=item) for item in items],
                items_before=len(before) if request.conversation_id else None,
            )
        return self._run(request, asker, place, Begun([*before, *items], asked, started, resource))

    async def _fitting(
        self,
        request: ResponseRequest,
        before: Sequence[Item],
        items: Sequence[Item],
        *,
        said: Sequence[Item],
    ) -> ChatOfResponse:
        """The conversation, without its oldest turns if it is too long and may be shortened."""
        run = self._context.workers.threads.run
        made = partial(chat_of_response, request, items, before, said=said)
        asked = await run(made)
        if request.truncation != "auto" or await self._fits(request, asked):
            return asked
        low, high = 1, num_turns([*before, *items])
        while low <= high:  # as few turns as possible are left out
            middle = (low + high) // 2
            shorter = await run(partial(made, left_out=middle))
            if await self._fits(request, shorter):
                asked, high = shorter, middle - 1
            else:
                low = middle + 1
        return asked

    async def _fits(self, request: ResponseRequest, asked: ChatOfResponse) -> bool:
        """Whether the prompt leaves room for the answer that is wanted, or for a short one."""
        context = self._context.engine.info.max_context
        wanted = min(request.max_output_tokens or context // 8, context // 2)
        rendered = partial(self._prompts.prompt, asked.chat, max_context=context)
        try:
            prompt = await self._context.workers.threads.run(rendered)
        except ContextTooLong:
            return False
        return len(prompt.token_ids) + wanted <= context

    def _resource(self, request: ResponseRequest, place: Place) -> ResponseResource:
        defaults = self._context.engine.info.defaults
        echo = request.echo()
        # What the answer is drawn with, where the request leaves that to the model.
        if request.temperature is None:
            echo["temperature"] = defaults.temperature
        if request.top_p is None:
            echo["top_p"] = defaults.top_p
        return ResponseResource(
            place.response_id,
            model=self._context.settings.model_name,
            created=int(time.time()),
            echo=echo | {"store": place.store is not None},
        )

    def _run(
        self, request: ResponseRequest, asker: Asker, place: Place, begun: Begun
    ) -> BegunResponse:
        builder = OutputBuilder(
            place.response_id,
            tools=begun.asked.tools,
            vocabulary=self._context.vocabulary if request.wants_logprobs else None,
            encodes_reasoning="reasoning.encrypted_content" in request.include,
        )
        store = place.store
        archive = None if store is None else StoredEvents(store, place.response_id)
        readers = Readers.ONE if asker.has_reader else Readers.NONE
        log = EventLog(archive, readers=Readers.ANY if asker.is_replayed else readers)
        answer = ResponseAnswer(
            begun.started.choices[0],
            resource=begun.resource,
            builder=builder,
            timing=place.timing,
            log=log,
            store=store,
            is_silent=not asker.wants_answer,
        )
        run = Run(
            place.response_id,
            log,
            owner=asker.owner,
            is_replayed=asker.is_replayed,
            snapshot=answer.snapshot,
            timing=place.timing.shown,
        )
        if asker.chat_id is not None:
            streams = self._context.engine.streams
            run.position = partial(streams.queue_position, place.stream)
        answer.announce(is_queued=asker.is_queued(request), said=asker.said)
        self._context.runs.start(run, answer.make(run))
        return BegunResponse(run, answer, begun.started.prepared.unenforced, begun.items)


def _row(request: ResponseRequest, resource: ResponseResource, asker: Asker) -> StoredResponse:
    return StoredResponse(
        id=resource.id,
        owner=asker.owner,
        kind="response",
        created=resource.created,
        status="queued" if asker.is_queued(request) else "in_progress",
        previous_id=request.previous_response_id,
        conversation_id=request.conversation_id,
        is_resumable=asker.is_replayed,
        resource=resource.without_output(),
        chat_id=asker.chat_id,
    )
