"""One engine's requests, on the background loop: places, batches, cancelling.

Rules:
1. A batch keeps the engine busy but leaves room: at most one waiting request for each running one.
2. A prompt of a batch that fails, fails alone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial

from millstream.core.status import Statistics
from millstream.embedded.asking import Asked, Checked, Options
from millstream.embedded.generation import NOTHING, Begun, Generation
from millstream.embedded.results import Answer, Delta, EngineStatistics, join
from millstream.errors import MillstreamError, Overloaded, ShuttingDown
from millstream.generation.answer_grammars import AnswerGrammars
from millstream.generation.chat_answers import ChatAnswers
from millstream.generation.choices import Choice, close_all
from millstream.generation.context import ModelContext
from millstream.generation.places import open_places, places_of
from millstream.generation.prompts import Prompts
from millstream.generation.text_answers import TextAnswers
from millstream.intake.requests.chat import ChatRequest
from millstream.runtime.stream import TokenStream

UNLIMITED = 2**31
"""More places than this are as many as are asked for."""


class Session:
    """What all requests of one engine share. Used on the background loop only."""

    def __init__(self, context: ModelContext, *, max_running: int) -> None:
        self.client = context.engine
        self._workers = context.workers
        grammars = AnswerGrammars(context.tokenizer, context.workers)
        self._chats = ChatAnswers(context, prompts=Prompts(context), grammars=grammars)
        self._texts = TextAnswers(context, grammars=grammars)
        self._batch_places = min(self.client.max_open, 2 * max_running)
        self._freed = asyncio.Event()

    @property
    def statistics(self) -> EngineStatistics:
        """What the engine said last, and the places of this moment. From any thread."""
        client = self.client
        last = {field.name: getattr(client.statistics, field.name) for field in fields(Statistics)}
        num_free = client.max_open - client.num_open if client.max_open < UNLIMITED else None
        return EngineStatistics(**last, num_open=client.num_open, num_free=num_free)

    async def start(self) -> None:
        self.client.start()
        await self.client.wait_ready()

    async def stop(self) -> None:
        await self.client.stop()
        await self._workers.stop()
        self._workers.join()

    async def cancel(self, request_id: str) -> bool:
        """Ends the requests of this id with RequestCancelled. False if there is none."""
        is_found = self.client.cancel(request_id)
        self._freed.set()
        return is_found

    def generation(
        self, asked: Asked, *, request_id: str | None = None, waits: bool = False
    ) -> Generation:
        """A request that has not begun. waits: for places, instead of raising Overloaded."""
        return Generation(
            asked,
            request_id or secrets.token_hex(16),
            start=partial(self._begin, waits=waits),
            release=self._release,
        )

    async def run_batch(
        self,
        prompts: Sequence[Checked],
        options: Options,
        on_answer: Callable[[Answer], None],
    ) -> list[Answer]:
        """Answers in the order of the prompts. on_answer: told of each, in the order they end."""
        answers: dict[int, Answer] = {}
        queue = iter(enumerate(prompts))

        async def work() -> None:
            for index, prompt in queue:
                answers[index] = await self._answer(prompt, options)
                on_answer(answers[index])

        workers = [
            asyncio.create_task(work()) for _ in range(min(self._batch_places, len(prompts)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [answers[index] for index in range(len(prompts))]

    async def _answer(self, prompt: Checked, options: Options) -> Answer:
        try:
            asked = await self._workers.threads.run(partial(options.request, prompt))
        except MillstreamError as error:
            return join([], NOTHING, error=error)
        generation = self.generation(asked, waits=True)
        deltas: list[Delta] = []
        try:
            while (delta := await generation.next()) is not None:
                deltas.append(delta)
        except ShuttingDown:
            raise
        except MillstreamError as error:
            return join(deltas, generation.usage, unenforced=generation.unenforced, error=error)
        finally:
            generation.close()
        return join(deltas, generation.usage, unenforced=generation.unenforced)

    async def _begin(self, asked: Asked, request_id: str, *, waits: bool) -> Begun:
        streams = await self._open(asked, request_id, waits=waits)
        try:
            if asked.timeout is not None:
                for stream in streams:
                    stream.limit_time(asked.timeout)
            return await streams[0].prepare(self._start(asked, streams))
        except BaseException:
            close_all(streams)
            self._freed.set()
            raise

    async def _start(self, asked: Asked, streams: Sequence[TokenStream]) -> Begun:
        if isinstance(asked, ChatRequest):
            chat = await self._chats.start(asked, streams)
            return Begun(chat.choices, chat.prepared.unenforced)
        texts = await self._texts.start(asked, streams)
        return Begun(texts.choices, texts.prepared[0].unenforced)

    async def _open(self, asked: Asked, request_id: str, *, waits: bool) -> list[TokenStream]:
        while True:
            # Matters after the engine's thread died: another one is being started then.
            await self.client.wait_ready()
            try:
                return open_places(self.client, places_of(asked), names=(request_id,))
            except Overloaded:
                if not waits:
                    raise
            self._freed.clear()
            await self._freed.wait()

    def _release(self, choices: Sequence[Choice]) -> None:
        """Closes them, which cancels what has not ended, and lets who waits for a place try."""
        close_all(choice.stream for choice in choices)
        self._freed.set()
