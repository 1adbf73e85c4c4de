"""Engine: what `from millstream import Engine` gives. A composition root, like the server's.

Rules: threads, not processes: the model stays where it is. Everything here may be called from any
thread and beside any event loop.
"""

from __future__ import annotations

import asyncio
import queue
import weakref
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]
from typing_extensions import Unpack

from millstream.core.status import EngineInfo
from millstream.embedded.answer_stream import AnswerStream
from millstream.embedded.arguments import WrongArgument
from millstream.embedded.asking import Options, Prompt, check_prompt
from millstream.embedded.background import Background
from millstream.embedded.keywords import EngineSettings, LoadingSettings, check_settings
from millstream.embedded.options import ChatOptions, TextOptions
from millstream.embedded.results import Answer, BatchFailed, EngineStatistics
from millstream.embedded.served_model import ServedModel
from millstream.embedded.session import UNLIMITED, Session
from millstream.generation.context import ModelContext
from millstream.model.loading.sharing import PreTrainedModel, PreTrainedTokenizerBase
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from millstream.settings import Settings
from millstream.workers.workers import Workers


class Engine:
    """Answers many requests at once with one model in this process.

    Building it takes a second: the model is checked, the KV cache allocated. Close it, or use it
    in a `with` or `async with` block; one that is dropped, or left at exit, closes itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        **settings: Unpack[EngineSettings],
    ) -> None:
        """Serves a loaded model. Its weights are shared; the object itself is left as it is.

        Raises StartupError if the model cannot be served exactly.
        """
        options = check_settings(settings, EngineSettings)
        served = ServedModel.share(model, tokenizer, options)
        self._start(served, options, has_limit="max_queue_size" in settings)

    @classmethod
    def from_pretrained(
        cls, model_id: str | PathLike[str], **settings: Unpack[LoadingSettings]
    ) -> Engine:
        """Loads a local folder or Hub id as the server does, which also sets torch's threads.

        Raises StartupError if it cannot be loaded or served exactly.
        """
        options = check_settings({"model_id": fspath(model_id), **settings}, LoadingSettings)
        engine = cls.__new__(cls)
        engine._start(ServedModel.load(options), options, has_limit="max_queue_size" in settings)
        return engine

    def _start(self, served: ServedModel, settings: Settings, *, has_limit: bool) -> None:
        self._info = served.runner.info
        max_running = settings.max_concurrent_requests
        client = supervised_client(
            ThreadHost(
                build_runner=lambda: served.runner,
                max_running=max_running,
                speculate=settings.speculate,
            ),
            max_running=max_running,
            max_waiting=settings.max_queue_size if has_limit else UNLIMITED,
            engine_timeout=float("inf"),  # a thread that is stuck cannot be ended
        )
        context = ModelContext(engine=client, workers=Workers(), **served.side._asdict())
        self._session = Session(context, max_running=max_running)
        self._background = Background()
        self._close = weakref.finalize(self, self._background.close, self._session.stop)
        self._background.submit(self._session.start).result()

    def __repr__(self) -> str:
        client, info = self._session.client, self._info
        if not self._close.alive:
            return f"<Engine {info.architecture}, closed>"
        free = f"{client.max_open - client.num_open:,} of {client.max_open:,} places free"
        if client.max_open > UNLIMITED:
            free = f"{client.num_open:,} answers open, any number may wait"
        return f"<Engine {info.architecture} on {info.device}, {info.dtype}: {free}>"

    @property
    def info(self) -> EngineInfo:
        """What is served: device, precision, KV cache, context."""
        return self._info

    @property
    def statistics(self) -> EngineStatistics:
        """Running and waiting requests, free places, and blocks of the KV cache."""
        return self._session.statistics

    def chat(
        self, messages: Prompt, *, request_id: str | None = None, **options: Unpack[ChatOptions]
    ) -> AnswerStream:
        """The answer to a conversation, or to one user message, as a stream of deltas.

        request_id: a name for `cancel()`. Raises InvalidRequest for wrong arguments.
        """
        return self._stream(messages, options, request_id, raw=False)

    def complete(
        self, prompt: Prompt, *, request_id: str | None = None, **options: Unpack[TextOptions]
    ) -> AnswerStream:
        """How the model goes on after a text or token ids, without a chat template.

        See `chat()`.
        """
        return self._stream(prompt, options, request_id, raw=True)

    def cancel(self, request_id: str) -> bool:
        """Ends the requests of this id: who reads them gets RequestCancelled, from any thread.

        False if none is running or waiting.
        """
        return self._background.submit(self._session.cancel, request_id).result()

    def generate(
        self,
        prompts: Iterable[Prompt],
        *,
        raw: bool = False,
        show_progress: bool = True,
        **options: Unpack[ChatOptions],
    ) -> list[Answer]:
        """Answers all prompts, in their order, and waits for it.

        Each is a user's text, a conversation or token ids; with `raw`, text is no message but
        something to go on with. Raises BatchFailed once the others are finished if some fail;
        it holds all answers. An interrupt cancels what is outstanding.
        """
        if isinstance(prompts, str | Mapping):
            raise WrongArgument(
                "prompts is a list; for a single prompt write [prompt]", param="prompts"
            )
        checked = [check_prompt(prompt, raw=raw) for prompt in prompts]
        known = Options(options, self._info, raw=raw)
        news: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        future = self._background.submit(self._session.run_batch, checked, known, news.put)
        future.add_done_callback(lambda _: news.put(None))
        try:
            _show(news, total=len(checked), is_shown=show_progress)
            answers = future.result()
        except BaseException:
            future.cancel()
            raise
        if any(answer.error is not None for answer in answers):
            raise BatchFailed(answers)
        return answers

    def close(self) -> None:
        """Ends the engine and its threads; who still waits gets ShuttingDown. Idempotent."""
        self._close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def _stream(
        self, prompt: Prompt, options: Mapping[str, Any], request_id: str | None, *, raw: bool
    ) -> AnswerStream:
        checked = check_prompt(prompt, raw=raw)
        asked = Options(options, self._info, raw=raw).request(checked)
        generation = self._session.generation(asked, request_id=request_id)
        return AnswerStream(self._background, generation, owner=self)


def _show(news: queue.SimpleQueue[Answer | None], *, total: int, is_shown: bool) -> None:
    """A progress bar until None comes."""
    num_tokens = 0
    with tqdm(total=total, desc="Generating", unit="prompt", disable=not is_shown) as bar:
        while (answer := news.get()) is not None:
            num_tokens += answer.usage.completion_tokens
            elapsed = bar.format_dict["elapsed"] if is_shown else 0
            if elapsed:
                bar.set_postfix_str(f"{num_tokens / elapsed:,.0f} tokens/s", refresh=False)
            bar.update()
