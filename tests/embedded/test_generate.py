"""Batches: what they answer, in which order, and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
import io
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import millstream.embedded.engine as engine_module
from millstream import Answer, BatchFailed, Engine
from millstream.errors import ContextTooLong, GenerationFailed, InvalidRequest
from tests.embedded.conftest import check_idle, on_step
from tests.model.architectures import greedy

PROMPTS = ["Count to 5", "Say this is a test", "Who are you?", "What is 2 + 3?", "Count to 12"]


def texts(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def test_answers_are_those_of_transformers(
    engine: Engine, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = engine.generate(PROMPTS, temperature=0, show_progress=False)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        messages = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=200)[0]
        generated = output[inputs["input_ids"].shape[1] :].tolist()
        assert list(answer.token_ids) == generated
        assert answer.text == tokenizer.decode(generated, skip_special_tokens=True)
        assert answer.finish_reason == "stop"
        assert answer.usage.completion_tokens == len(generated)
        assert answer.usage.prompt_tokens == inputs["input_ids"].shape[1]
        assert answer.usage.total_tokens == len(output)


def test_guesses_change_no_answer(
    random_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Of three tokens, so that what comes next has often come before."""
    prompts = [[5, 6, 7], list(range(40, 90)) * 2]
    shared = {"allowed_token_ids": [5, 6, 7], "ignore_eos": True, "show_progress": False}
    options = [
        {"temperature": 0},
        {"temperature": 0, "logprobs": 2},
        {"temperature": 0, "repetition_penalty": 1.1, "n": 2},
        {"temperature": 0.2, "seed": 3, "top_k": 5},
    ]
    found = {}
    for most in (0, 8):
        with Engine(random_model, tokenizer, block_size=8, speculate=most) as engine:
            found[most] = [
                engine.generate(prompts, max_tokens=60, **shared, **each) for each in options
            ]
            check_idle(engine)
            statistics = engine.statistics
            assert (statistics.num_draft_tokens > 0) == (most > 0)
            assert (statistics.num_accepted_tokens > 0) == (most > 0)
    for without, guessed in zip(found[0], found[8], strict=True):
        for one, other in zip(without, guessed, strict=True):
            assert one.token_ids == other.token_ids
            assert one.usage == other.usage
            assert [each.token_ids for each in one.others] == [
                each.token_ids for each in other.others
            ]
            scores = [
                [item.score.logprob for item in answer.logprobs or ()] for answer in (one, other)
            ]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_random_model_batched_equals_alone_equals_transformers(
    random_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = [[5, 6, 7], [100, 200], list(range(40, 90)), [9]] * 3
    options = {"temperature": 0, "ignore_eos": True, "max_tokens": 24, "show_progress": False}
    with Engine(random_model, tokenizer, max_concurrent_requests=5, block_size=8) as engine:
        together = engine.generate(prompts, **options)
        for prompt, answer in zip(prompts, together, strict=True):
            (alone,) = engine.generate([prompt], **options)
            assert alone.token_ids == answer.token_ids
            assert list(answer.token_ids) == greedy(random_model, tuple(prompt), 24)
            assert answer.finish_reason == "length"
        assert together[-2].usage.cached_tokens == 48


def test_two_hundred_prompts_through_two_places(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    prompts = [PROMPTS[index % 5] for index in range(200)]
    with Engine(model, tokenizer, max_concurrent_requests=2, max_queue_size=0) as engine:
        expected = texts(engine.generate(PROMPTS, max_tokens=4, show_progress=False))
        answers = engine.generate(prompts, max_tokens=4, show_progress=False)
        assert texts(answers) == expected * 40
        check_idle(engine)


def test_batches_in_several_threads_share_the_places(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with (
        ThreadPoolExecutor(3) as threads,
        Engine(model, tokenizer, max_concurrent_requests=2, max_queue_size=0) as engine,
    ):
        batches = [
            threads.submit(engine.generate, PROMPTS, max_tokens=8, show_progress=False)
            for _ in range(3)
        ]
        assert len({tuple(texts(batch.result(timeout=60))) for batch in batches}) == 1
        check_idle(engine)


def test_kinds_of_prompts(engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [{"role": "user", "content": "Count to 5"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    answers = engine.generate(["Count to 5", messages, tuple(messages), ids], show_progress=False)
    raw = engine.generate([text, ids], raw=True, show_progress=False)
    assert set(texts(answers + raw)) == {"1\n2\n3\n4\n5"}
    assert engine.generate([], show_progress=False) == []


def test_raw_text_sees_no_template(engine: Engine) -> None:
    (raw,) = engine.generate(["Count to 5"], raw=True, max_tokens=1, show_progress=False)
    (chat,) = engine.generate(["Count to 5"], max_tokens=1, show_progress=False)
    assert raw.usage.prompt_tokens < chat.usage.prompt_tokens


def test_it_works_beside_a_running_event_loop(engine: Engine) -> None:
    """As in a notebook, where the main thread always has one."""

    async def cell() -> list[Answer]:
        return engine.generate(["Count to 5"], show_progress=False)

    assert texts(asyncio.run(cell())) == ["1\n2\n3\n4\n5"]


def test_seeds_fix_what_is_drawn(engine: Engine) -> None:
    options = {"temperature": 2.0, "max_tokens": 20, "show_progress": False}
    first = texts(engine.generate(PROMPTS, seed=1, **options))
    again = texts([engine.generate([prompt], seed=1, **options)[0] for prompt in PROMPTS])
    assert first == again
    assert first != texts(engine.generate(PROMPTS, seed=2, **options))
    assert texts(engine.generate(PROMPTS, **options)) != texts(engine.generate(PROMPTS, **options))


def test_the_bar_counts_prompts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    real = engine_module.tqdm
    monkeypatch.setattr(
        engine_module, "tqdm", lambda **options: real(file=shown, mininterval=0, **options)
    )
    engine.generate(PROMPTS, max_tokens=3)
    assert [f"{count}/5" for count in range(6) if f" {count}/5 " in shown.getvalue()] == [
        f"{count}/5" for count in range(6)
    ]
    assert "tokens/s" in shown.getvalue()
    length = len(shown.getvalue())
    engine.generate(PROMPTS, max_tokens=3, show_progress=False)
    assert len(shown.getvalue()) == length


def test_a_prompt_that_fails_loses_nothing_of_the_others(engine: Engine) -> None:
    long = list(range(3, 1003)) * 3
    with pytest.raises(BatchFailed, match=r"2 of 4 prompts failed.*prompt 1: .*3000") as caught:
        engine.generate(["Count to 5", long, "Count to 5", [10**6]], show_progress=False)
    answers = caught.value.answers
    assert texts(answers) == ["1\n2\n3\n4\n5", "", "1\n2\n3\n4\n5", ""]
    assert isinstance(answers[1].error, ContextTooLong)
    assert isinstance(answers[3].error, InvalidRequest)
    assert [answers[i].error for i in (0, 2)] == [None, None]
    assert answers[1].finish_reason is None


def test_a_failing_step_fails_its_prompts_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        on_step(patch, 5, fail)
        with pytest.raises(BatchFailed) as caught:
            engine.generate(["Count to 12"], show_progress=False)
    (answer,) = caught.value.answers
    assert isinstance(answer.error, GenerationFailed)
    assert answer.text == "1\n2"  # what may be white space before a call is held back
    assert len(answer.token_ids) == 4
    assert texts(engine.generate(["Count to 5"], show_progress=False)) == ["1\n2\n3\n4\n5"]


def test_an_interrupt_cancels_everything_and_leaves_the_engine_usable(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = threading.get_ident()
    # A test run that was started in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            on_step(patch, 10, lambda: signal.pthread_kill(main, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                engine.generate(PROMPTS * 20, ignore_eos=True, max_tokens=100)
    finally:
        signal.signal(signal.SIGINT, before)
    check_idle(engine)


def test_torch_threads_are_the_users(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    torch.set_num_threads(2)
    try:
        with Engine(model, tokenizer) as engine:
            engine.generate(["Hi"], max_tokens=2, show_progress=False)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("Hi", r"write \[prompt\]"),
        ({"role": "user"}, r"write \[prompt\]"),
        ([{"role": "user", "content": "Hi"}], "list of messages"),
        ([5], "not int"),
        ([["Hi"]], "and nothing else"),
        ([[True]], "and nothing else"),
        ([[3, {"role": "user"}]], "and nothing else"),
    ],
)
def test_what_is_no_prompt_is_a_type_error(engine: Engine, prompts: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        engine.generate(prompts, show_progress=False)  # type: ignore[arg-type]


def test_messages_are_not_raw(engine: Engine) -> None:
    with pytest.raises(TypeError, match="need the chat template"):
        engine.generate([[{"role": "user", "content": "Hi"}]], raw=True, show_progress=False)


def test_empty_prompts_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        engine.generate([[]], show_progress=False)
    with pytest.raises(BatchFailed, match="empty"):
        engine.generate([""], raw=True, show_progress=False)
