"""One answer at a time: deltas, from any loop or none, and every way of leaving early."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millstream import Answer, AnswerStream, Delta, Engine
from millstream.errors import ContextTooLong, GenerationFailed, Overloaded, ShuttingDown
from millstream.generation.prompts import Prompts, RenderedPrompt
from tests.embedded.conftest import check_idle, on_step

COUNTED = "1\n2\n3\n4\n5"
MESSAGES = [{"role": "user", "content": "Count to 5"}]


def endless(engine: Engine) -> AnswerStream:
    return engine.chat("Count to 5", ignore_eos=True)


async def test_chat_streams(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    is_read = threading.Event()
    on_step(monkeypatch, 4, lambda: is_read.wait(60))
    deltas = []
    async for delta in engine.chat(MESSAGES, max_tokens=64):
        deltas.append(delta)
        is_read.set()
    assert len(deltas) > 1
    assert "".join(delta.text for delta in deltas) == COUNTED
    assert [delta.finish_reason for delta in deltas[-2:]] == [None, "stop"]
    assert [delta.usage is None for delta in deltas[-2:]] == [True, False]
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == sum(len(delta.token_ids) for delta in deltas)


def test_chat_streams_without_any_event_loop(engine: Engine) -> None:
    assert "".join(delta.text for delta in engine.chat("Count to 5")) == COUNTED


async def test_the_streamed_answer_is_the_batch_answer(engine: Engine) -> None:
    answer = await engine.chat("Count to 5").answer()
    (batch,) = engine.generate(["Count to 5"], show_progress=False)
    assert answer == batch
    assert isinstance(answer, Answer)


def test_complete_goes_on_with_text_or_ids(
    engine: Engine, tokenizer: PreTrainedTokenizerBase
) -> None:
    text = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for prompt in (text, ids):
        assert "".join(delta.text for delta in engine.complete(prompt)) == COUNTED


def test_loops_in_two_threads_and_a_batch_at_once(engine: Engine) -> None:
    async def ask(number: int) -> str:
        return "".join([delta.text async for delta in engine.chat(f"Count to {number}")])

    async def ask_all() -> list[str]:
        return await asyncio.gather(*map(ask, range(3, 9)))

    expected = ["\n".join(map(str, range(1, number + 1))) for number in range(3, 9)]
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(asyncio.run, ask_all()) for _ in range(2)]
        batch = engine.generate([f"Count to {n}" for n in range(3, 9)], show_progress=False)
        assert [answer.text for answer in batch] == expected
        assert [result.result() for result in running] == [expected, expected]


async def test_break_cancels(engine: Engine) -> None:
    async for delta in endless(engine):
        assert isinstance(delta, Delta)
        break
    await asyncio.to_thread(check_idle, engine)


async def test_an_exception_in_the_loop_cancels(engine: Engine) -> None:
    async def read() -> None:
        async for _ in endless(engine):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    gc.collect()  # a test runner may keep frames of tracebacks in cycles
    await asyncio.to_thread(check_idle, engine)


async def test_aclosing_and_closing_cancel(engine: Engine) -> None:
    async with aclosing(endless(engine)) as stream:
        await anext(stream)
    assert [delta async for delta in stream] == []
    with closing(endless(engine)) as other:
        next(other)
    assert list(other) == []
    await asyncio.to_thread(check_idle, engine)


async def test_cancelling_the_task_cancels(engine: Engine) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            begun.set()

    stream = endless(engine)
    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # `stream` is still held here: it is the cancellation that ended it, not the collector.
    await asyncio.to_thread(check_idle, engine)
    assert [delta async for delta in stream] == []


async def test_a_dropped_stream_is_cancelled_even_in_a_cycle(engine: Engine) -> None:
    stream = endless(engine)
    await anext(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()
    await asyncio.to_thread(check_idle, engine)


def test_closing_from_elsewhere_ends_a_reader_that_waits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = endless(engine)
    deltas: list[Delta] = []
    is_read = threading.Event()

    def read() -> None:
        for delta in stream:
            deltas.append(delta)
            is_read.set()

    def close() -> None:
        is_read.wait(60)
        stream.close()

    on_step(monkeypatch, 20, close)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout=60)
    assert not reader.is_alive()
    assert 0 < len(deltas) < 100


def test_closing_while_the_prompt_is_tokenised(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Prompts.prompt

    def prompt(self: Prompts, *arguments: Any, **options: Any) -> RenderedPrompt:
        stream.close()
        return real(self, *arguments, **options)

    stream = endless(engine)
    monkeypatch.setattr(Prompts, "prompt", prompt)
    assert list(stream) == []


def test_a_stream_that_was_not_read_took_no_place(engine: Engine) -> None:
    endless(engine).close()
    kept = endless(engine)
    check_idle(engine)
    kept.close()
    assert list(kept) == []


def test_a_failing_step_raises_where_the_reader_waits(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("planted")

    stream = endless(engine)
    with monkeypatch.context() as patch:
        on_step(patch, 3, fail)
        with pytest.raises(GenerationFailed, match="RuntimeError"):
            list(stream)
    assert list(stream) == []


def test_admission_is_known_before_the_first_delta(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with Engine(model, tokenizer, max_concurrent_requests=1, max_queue_size=1) as engine:
        with endless(engine) as first, endless(engine):
            assert engine.statistics.num_free == 0
            with pytest.raises(Overloaded), endless(engine):
                pytest.fail("entered")
            with pytest.raises(Overloaded):
                endless(engine).wait_admitted()
            with pytest.raises(Overloaded):
                next(endless(engine))
            first.close()
            third = engine.chat("Count to 5").wait_admitted()
            assert third.wait_admitted() is third
        assert third.result().text == COUNTED
        check_idle(engine)


async def test_admission_is_awaited(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    async with Engine(model, tokenizer, max_concurrent_requests=1, max_queue_size=0) as engine:
        async with endless(engine) as first:
            with pytest.raises(Overloaded):
                async with endless(engine):
                    pytest.fail("entered")
            with pytest.raises(Overloaded):
                await endless(engine).admitted()
            await anext(first)
        stream = await engine.chat("Count to 5").admitted()
        assert engine.statistics.num_free == 0
        assert (await stream.answer()).text == COUNTED
        with pytest.raises(ContextTooLong):
            await engine.chat("word " * 100_000).admitted()
        await asyncio.to_thread(check_idle, engine)


def test_an_admitted_stream_that_nobody_reads_gives_its_place_back(engine: Engine) -> None:
    stream = endless(engine).wait_admitted()
    assert engine.statistics.num_open == 1
    del stream
    gc.collect()
    check_idle(engine)


def test_without_a_limit_all_wait_their_turn(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    async def ask_all(engine: Engine) -> set[str]:
        return {answer.text for answer in await asyncio.gather(*map(ask, [engine] * 300))}

    async def ask(engine: Engine) -> Answer:
        return await engine.chat("Count to 5", max_tokens=3).answer()

    with Engine(model, tokenizer, max_concurrent_requests=4) as engine:
        assert asyncio.run(ask_all(engine)) == {"1\n2"}
        check_idle(engine)


def test_closing_the_engine_ends_who_waits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, tokenizer, max_concurrent_requests=2, max_queue_size=0)
    busy = threading.Event()
    on_step(monkeypatch, 20, busy.set)
    with ThreadPoolExecutor(1) as threads:
        batch = threads.submit(engine.generate, ["Hi"] * 50, ignore_eos=True, show_progress=False)
        busy.wait()
        engine.close()
        with pytest.raises(ShuttingDown, match="closed"):
            batch.result()
