"""One engine's requests, on the background loop: places, prompts, deltas, batches.

Rules:
1. A place is given back on every ending: finish, failure, cancellation, `close()`.
2. A batch keeps the engine busy but leaves room: at most one waiting request for each running one.
3. A prompt of a batch that fails, fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tokenizers import Tokenizer

from millstream.core.request import TokenEvent
from millstream.embedded.options import Options, build_request
from millstream.embedded.prompt_encoder import Checked, PromptEncoder
from millstream.embedded.results import Answer, Delta, Usage, join
from millstream.errors import MillstreamError, Overloaded, ShuttingDown
from millstream.runtime.client import EngineClient
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler
from millstream.text.vocabulary import Vocabulary

_TOKENIZER_THREADS = 2


class Session:
    """What all requests of one engine share. Used on the background loop only."""

    def __init__(
        self,
        client: EngineClient,
        *,
        encoder: PromptEncoder,
        tokenizer: Tokenizer,
        end_of_turn: Iterable[int],
        max_running: int,
    ) -> None:
        self.client = client
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer)
        self._end_of_turn = tuple(end_of_turn)
        self._batch_places = min(client.max_open, 2 * max_running)
        self._freed = asyncio.Event()
        self._threads = ThreadPoolExecutor(_TOKENIZER_THREADS, "millstream-tokenizer")

    async def start(self) -> None:
        self.client.start()
        await self.client.wait_ready()

    async def stop(self) -> None:
        await self.client.stop()
        self._threads.shutdown()

    async def begin(
        self, prompt: Checked, options: Options, *, waits: bool
    ) -> tuple[TokenStream, TextAssembler]:
        """Hands a request to the engine. waits: for a place, instead of raising Overloaded."""
        stream = await self._open(waits=waits)
        try:
            info = self.client.info
            loop = asyncio.get_running_loop()
            ids = await loop.run_in_executor(
                self._threads,
                lambda: self._encoder.encode(
                    prompt, max_context=info.max_context, variables=options.chat_template_kwargs
                ),
            )
            request = build_request(
                options,
                request_id=stream.id,
                prompt=ids,
                room=self.client.check_length(num_prompt=len(ids)),
                info=info,
                vocabulary=self._vocabulary,
                end_of_turn=self._end_of_turn,
            )
            stream.start(request)
        except BaseException:
            self.release(stream)
            raise
        return stream, TextAssembler(
            self._tokenizer,
            prompt=ids,
            stops=options.stops,
            min_tokens=options.min_tokens or 0,
            include_stop=bool(options.include_stop_str_in_output),
            skip_special_tokens=options.skip_special_tokens is not False,
            vocabulary=None if options.logprobs is None else self._vocabulary,
        )

    def release(self, stream: TokenStream) -> None:
        """Closes it, which cancels what has not ended, and lets who waits for a place try."""
        stream.close()
        self._freed.set()

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
        generation = Generation(self, prompt, options, waits=True)
        deltas: list[Delta] = []
        try:
            while (delta := await generation.next()) is not None:
                deltas.append(delta)
        except ShuttingDown:
            raise
        except MillstreamError as error:
            return join(deltas, generation.usage, error)
        finally:
            generation.close()
        return join(deltas, generation.usage)

    async def _open(self, *, waits: bool) -> TokenStream:
        while True:
            # Matters after the engine's thread died: another one is being started then.
            await self.client.wait_ready()
            try:
                return self.client.open()
            except Overloaded:
                if not waits:
                    raise
            self._freed.clear()
            await self._freed.wait()


class _ClosedByReader(MillstreamError):
    """Wakes a reader whose answer is closed from elsewhere."""


class Generation:
    """One request: begins with the first `next()`, ends with the last delta or `close()`."""

    def __init__(self, session: Session, prompt: Checked, options: Options, *, waits: bool) -> None:
        self._session = session
        self._prompt = prompt
        self._options = options
        self._waits = waits
        self._running: tuple[TokenStream, TextAssembler] | None = None
        self._is_closed = False

    @property
    def usage(self) -> Usage:
        if self._running is None:
            return Usage(prompt_tokens=0, completion_tokens=0, cached_tokens=0)
        assembler = self._running[1]
        return Usage(
            prompt_tokens=assembler.num_prompt,
            completion_tokens=assembler.num_generated,
            cached_tokens=assembler.num_cached,
        )

    async def next(self) -> Delta | None:
        """What has arrived since the last call, waiting for something; None after the end."""
        if self._is_closed:
            return None
        stream, assembler = self._running or await self._begin()
        try:
            events = await anext(stream)
        except _ClosedByReader:
            return None
        delta = self._delta(assembler, events)
        if delta.finish_reason is not None:
            self.close()
        return delta

    async def _begin(self) -> tuple[TokenStream, TextAssembler]:
        begun = await self._session.begin(self._prompt, self._options, waits=self._waits)
        self._running = begun
        if self._is_closed:  # meanwhile
            self.close()
        return begun

    def close(self) -> None:
        """Cancels what has not ended. Idempotent; ends a `next()` that waits."""
        self._is_closed = True
        if self._running is not None:
            stream = self._running[0]
            self._session.release(stream)
            stream.fail(_ClosedByReader("the answer was closed by its reader"))

    def _delta(self, assembler: TextAssembler, events: list[TokenEvent]) -> Delta:
        delta = assembler.push(events)
        return Delta(
            text=delta.text,
            token_ids=delta.token_ids,
            finish_reason=delta.finish_reason,
            usage=None if delta.finish_reason is None else self.usage,
            logprobs=delta.logprobs,
            prompt_logprobs=tuple(e for event in events for e in event.prompt_logprobs),
        )
