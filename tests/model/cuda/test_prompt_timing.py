"""Which steps with prompts graphs leave to others: by a clock of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from millstream.core.plan import Plan
from millstream.model.cuda import prompt_timing
from millstream.model.cuda.backends import TritonBackend, VarlenBackend
from millstream.model.cuda.dense_prompts import DensePromptBackend, PromptLimits
from millstream.model.cuda.prompt_timing import leave_out_slower
from millstream.model.execution import Computed
from millstream.model.paging.backend import AttentionBackend
from tests.model.architectures import make_model
from tests.model.cuda.test_dense_prompts import Varlen, plain_kernels
from tests.model.cuda.test_prompt_graphs import PromptRunner
from tests.model.cuda.test_prompt_staging import make_chunk

ALL = {(tokens, start) for tokens in (30, 64, 65, 128) for start in (0, 1)}


class Clock:
    """Takes the place of eager execution and of the clock. timed: tokens and prefix of each plan.

    ratio: how many times as long as the plan itself its replay takes, by tokens and prefix.
    """

    def __init__(self, cuda: PromptRunner, ratio: Callable[[int, int], float]) -> None:
        self._prompts, self._ratio = cuda.prompts, ratio
        self.timed: list[tuple[int, int]] = []

    def compute(self, plan: Plan) -> Computed:
        (chunk,) = plan.chunks
        self.timed.append((len(chunk.tokens), chunk.start))
        return Computed(torch.zeros(1))

    def __call__(self, compute: Callable[[], object]) -> float:
        before = self._prompts.num_replays
        compute()
        if self._prompts.num_replays == before:
            return 1.0
        return self._ratio(*self.timed[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama-2")
    make_model("llama", folder, num_hidden_layers=2)
    return folder


@pytest.fixture
def cuda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PromptRunner:
    monkeypatch.setattr(prompt_timing, "_PREFIX", 16)
    return PromptRunner(folder, max_prompt_tokens=128)


def dense(*, fresh: int | None, continued: int | None, most_keys: int = 1000) -> AttentionBackend:
    limits = PromptLimits(fresh=fresh, continued=continued, most_keys=most_keys)
    return DensePromptBackend(plain_kernels(), Varlen(), limits=limits)


def left_out(
    cuda: PromptRunner,
    backend: AttentionBackend,
    clock: Clock,
    *,
    max_context: int = 200,
) -> set[tuple[int, int]]:
    """Tokens and prefixes of prompts that do not come from graphs."""
    leave_out_slower(
        cuda.prompts,
        clock,  # type: ignore[arg-type]
        backend,
        cache=cuda.runner.cache,
        max_context=max_context,
        seconds_of=clock,
    )
    return {
        (tokens, start)
        for tokens, start in ALL
        if cuda.prompts.find(Plan((make_chunk(1, start=start, length=tokens),))) is None
    }


def test_what_is_slower_from_graphs_is_left_out(cuda: PromptRunner) -> None:
    clock = Clock(cuda, lambda tokens, prefix: 1.2 if tokens > 64 and not prefix else 0.9)
    assert left_out(cuda, dense(fresh=32, continued=32), clock) == {(128, 0)}
    assert clock.timed == [(128, 0), (64, 0), (128, 16)]


def test_prompts_behind_a_prefix_have_a_limit_of_their_own(cuda: PromptRunner) -> None:
    clock = Clock(cuda, lambda tokens, prefix: 1.2 if prefix else 0.9)
    assert left_out(cuda, dense(fresh=32, continued=60), clock) == {(64, 1), (65, 1), (128, 1)}


def test_what_is_computed_alike_is_not_timed(cuda: PromptRunner) -> None:
    clock = Clock(cuda, lambda tokens, prefix: 2.0)
    assert left_out(cuda, TritonBackend(plain_kernels()), clock) == set()
    assert left_out(cuda, dense(fresh=None, continued=None), clock) == set()
    assert left_out(cuda, dense(fresh=129, continued=None), clock) == set()
    assert clock.timed == []


@pytest.mark.parametrize(("ratio", "is_left_out"), [(2.0, True), (0.5, False)])
def test_a_backend_that_cannot_be_captured_is_another_way(
    cuda: PromptRunner, ratio: float, *, is_left_out: bool
) -> None:
    varlen = VarlenBackend(lambda **_: None)
    from_graphs = {(30, 0), (30, 1)}
    found = left_out(cuda, varlen, Clock(cuda, lambda tokens, prefix: ratio))
    assert found == (ALL - from_graphs if is_left_out else set())


def test_what_there_is_no_room_for_is_not_timed(cuda: PromptRunner) -> None:
    clock = Clock(cuda, lambda tokens, prefix: 2.0)
    backend = dense(fresh=1, continued=1)
    assert left_out(cuda, backend, clock, max_context=64) == ALL - {(30, 0), (30, 1)}
    assert clock.timed == [(64, 0), (32, 0), (32, 16)]


def test_a_timing_that_fails_leaves_all_of_them_out(
    cuda: PromptRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(tokens: int, prefix: int) -> float:
        raise RuntimeError("out of memory")

    clock = Clock(cuda, fail)
    assert left_out(cuda, dense(fresh=65, continued=None), clock) == {(65, 0), (128, 0)}
    assert "which prompts are slower from graphs is not known: out of memory" in caplog.text
