"""Steps that are launched before the tokens they begin with are known, over a real model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from millstream.core.blocks import BlockPool
from millstream.core.plan import IMPOSSIBLE_TOKEN, INVALID_TOKEN, UNKNOWN_TOKEN, Plan
from millstream.core.request import Grammar, Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.model.execution import EagerExecution
from millstream.model.paging.layout import StepBefore, fill_unknown_tokens
from millstream.model.runner import ModelRunner
from millstream.model.sampling import filters
from millstream.model.sampling.sampler import Sampler
from millstream.runtime.loop import EngineLoop
from millstream.runtime.messages import Add
from millstream.text.grammars.answer_formats import choice_grammar, json_grammar, regex_grammar
from tests.model.sampling.test_grammars import DEMO, TOKENIZER
from tests.model.sampling_cases import make_chunk
from tests.model.test_architectures import make_runner
from tests.model.test_runner import ScriptedChannel

END = 2


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    return make_runner(DEMO, block_size=8)


def run(
    runner: ModelRunner, requests: list[Request], *, plans_ahead: bool
) -> tuple[dict[int, list[int]], dict[int, str]]:
    """Answers and failures, by the engine's own loop."""
    channel = ScriptedChannel([Add(request) for request in requests], [])
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=64, block_size=8), max_running=8, max_step_tokens=64
    )
    assert isinstance(runner.execution, EagerExecution)
    runner.execution.plans_ahead = plans_ahead
    EngineLoop(scheduler=scheduler, runner=runner, channel=channel).run()
    scheduler.check()
    assert scheduler.statistics().num_blocks_used == 0
    return channel.answers, {failure.request_id: failure.code for failure in channel.failures}


def make_request(number: int, **options: object) -> Request:
    fields = {"temperature": 0.0, "seed": number} | options
    return Request(
        id=number,
        prompt=(5, 6, 7 + number),
        sampling=SamplingParams(**fields),  # type: ignore[arg-type]
        max_tokens=24,
        stop_token_ids=(END,),
    )


def test_answers_keep_their_form(runner: ModelRunner, caplog: pytest.LogCaptureFixture) -> None:
    """Each ends while a step that does not know is under way: its grammar is not asked again."""
    schema = {"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"]}
    texts = [regex_grammar("(ab|cd){3,5}!"), choice_grammar(["yes", "no"]), json_grammar(schema)]
    requests = [
        replace(make_request(i), grammar=Grammar(text=text)) for i, text in enumerate(texts)
    ]
    requests += [
        make_request(10, temperature=1.2, repetition_penalty=1.4, logprobs=3),
        make_request(11, frequency_penalty=1.5, bad_words=((9,), (5, 6)), min_tokens=4),
        make_request(12, temperature=0.8, top_p=0.9),
    ]
    expected = run(runner, requests, plans_ahead=False)
    assert run(runner, requests, plans_ahead=True) == expected
    assert expected[1] == {}
    assert TOKENIZER.decode(expected[0][1]) in ("yes", "no")
    assert "no token fits" not in caplog.text


def test_a_request_without_a_token_fails_alone(runner: ModelRunner) -> None:
    impossible = make_request(1, allowed_token_ids=(9,), bad_words=((9,),))
    late = make_request(2, allowed_token_ids=(20,), bad_words=((20, 20),))
    healthy = make_request(3)
    expected = run(runner, [impossible, late, healthy], plans_ahead=False)
    assert run(runner, [impossible, late, healthy], plans_ahead=True) == expected
    answers, failures = expected
    assert failures == {1: "no_token_allowed", 2: "no_token_allowed"}
    assert answers == {2: [20], 3: run(runner, [healthy], plans_ahead=False)[0][3]}


def test_only_unknown_tokens_are_filled_in() -> None:
    chunks = [make_chunk(SamplingParams(), request_id=i) for i in range(5)]
    for unknown in (0, 2, 3, 4):
        chunks[unknown] = chunks[unknown]._replace(tokens=(UNKNOWN_TOKEN,))
    token_ids = torch.tensor([-1, 31, -1, -1, -1])
    drawn = torch.tensor([IMPOSSIBLE_TOKEN, 40, 42, 43, INVALID_TOKEN])
    fill_unknown_tokens(token_ids, Plan(tuple(chunks)), StepBefore([4, 9, 2, 3, 0], lambda: drawn))
    assert token_ids.tolist() == [0, 31, 42, 43, 0]
    assert drawn[0] == IMPOSSIBLE_TOKEN

    def nothing() -> torch.Tensor:
        raise AssertionError("nothing is unknown")

    fill_unknown_tokens(token_ids, Plan((chunks[1],)), StepBefore([], nothing))


def test_the_best_token_goes_on_until_a_row_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess: only where it was wrong, what was computed from it is void."""
    monkeypatch.setattr(filters, "LEADER_COUNTS", (4,))
    chunks = [
        make_chunk(SamplingParams(top_p=0.999, seed=seed), request_id=seed) for seed in range(40)
    ]
    logits = torch.zeros(1, 64).index_fill(1, torch.tensor([33]), 4.0).expand(40, 64).contiguous()
    sampler = Sampler()
    drawing = sampler.launch(logits, chunks)
    assert drawing.tokens().tolist() == [33] * 40
    tokens, late = sampler.finish(drawing)
    assert sorted(late) == [row for row, token in enumerate(tokens) if token != 33]
    assert 5 < len(late) < 35
