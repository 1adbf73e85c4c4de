"""Steps with prompts that are captured, on the CPU: they are recorded by a stand-in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model import build
from millstream.model.cuda.capture import CapturedExecution
from millstream.model.cuda.prompt_graphs import PromptGraphs
from millstream.model.cuda.prompt_sizes import StepSize, size_of
from millstream.model.cuda.recording import Recording
from millstream.model.cuda.staging import Staging
from millstream.model.sampling import filters
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import CPU, CudaRunner, EagerRecording, PlainBackend, run_all
from tests.model.cuda.test_prompt_staging import decodes, make_chunk
from tests.model.test_architectures import greedy_request, make_runner
from tests.model.test_schedules import BLOCK_SIZE, drive, random_request


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama-2")
    make_model("llama", folder, num_hidden_layers=2)
    return folder


class PromptRunner(CudaRunner):
    """A runner on the CPU whose steps with prompts are captured like those without."""

    def __init__(self, folder: Path, *, max_rows: int = 6, max_prompt_tokens: int = 64) -> None:
        super().__init__(folder, max_rows=max_rows, max_prompt_tokens=max_prompt_tokens)

    @property
    def prompts(self) -> PromptGraphs:
        assert isinstance(self.execution, CapturedExecution)
        assert self.execution.prompts is not None
        return self.execution.prompts

    def replay(self, plan: Plan) -> Tensor:
        """The logits of a plan that a graph holds."""
        before = self.prompts.num_replays
        logits = self.execution.compute(plan).logits
        assert self.prompts.num_replays == before + 1
        return logits


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_replayed_steps_answer_as_steps_that_run(
    folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *, plans_ahead: bool
) -> None:
    """Every sampling option, preemption, prefix hits, scored prompts; up to 40 tokens a step."""
    monkeypatch.setattr(filters, "LEADER_COUNTS", (4, 32))
    source = random.Random(seed)
    requests = [random_request(source, i, None) for i in range(1, source.randint(4, 8))]
    plain = run_all(make_runner(folder, block_size=BLOCK_SIZE), requests, random.Random(seed))
    cuda = PromptRunner(folder)
    found = run_all(cuda.runner, requests, random.Random(seed), plans_ahead=plans_ahead)
    assert found == plain
    assert cuda.prompts.num_replays >= 3


def test_a_step_that_fills_a_graph_is_the_same_to_the_bit(folder: Path) -> None:
    """Then products have as many rows either way; all else does not depend on other rows."""
    cuda = PromptRunner(folder)
    prompts = [make_chunk(7, start=0, length=20), make_chunk(8, start=13, length=12)]
    plan = Plan((*decodes(3, 17, 40, 1, 8, 30), *prompts))
    assert size_of(plan) in cuda.prompts.sizes
    # What the decode rows see behind their own key.
    for keys in cuda.runner.cache.keys.values():
        keys[:64].normal_(generator=torch.Generator().manual_seed(0))
    assert isinstance(cuda.execution, CapturedExecution)
    assert torch.equal(cuda.replay(plan), cuda.execution.eager.logits(plan))


def test_what_fills_a_step_up_changes_nothing(folder: Path) -> None:
    """A longer step before it leaves other tokens, positions and tables; the spare block is NaN."""
    cuda = PromptRunner(folder)
    cache = cuda.runner.cache
    plan = Plan(
        (*decodes(3, 17), make_chunk(7, start=0, length=9), make_chunk(8, start=5, length=4))
    )
    first = cuda.replay(plan)
    cuda.replay(Plan((*decodes(50, 60, 55, 44), make_chunk(6, start=30, length=28))))
    for tensor in (*cache.keys.values(), *cache.values.values()):
        tensor[cache.spare_block] = float("nan")
    assert torch.equal(cuda.replay(plan), first)
    torch.testing.assert_close(first, cuda.execution.eager.logits(plan))  # type: ignore[union-attr]


def test_rows_for_nobody_touch_the_spare_block_only(folder: Path) -> None:
    cuda = PromptRunner(folder)
    cache = cuda.runner.cache
    cache.scrub(range(cache.num_blocks + 2))
    plan = Plan((*decodes(3), make_chunk(2, start=0, length=9, is_last=False)))
    cuda.replay(plan)
    slots = {
        chunk.block_table[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE
        for chunk in plan.chunks
        for i in range(chunk.start, chunk.start + len(chunk.tokens))
    }
    for tensor in (*cache.keys.values(), *cache.values.values()):
        written = tensor.flatten(0, 1).flatten(1).any(1).nonzero().flatten().tolist()
        assert set(written) == slots | {cache.spare_block * BLOCK_SIZE}


@pytest.mark.parametrize(
    ("chunks", "size"),
    [
        ([(0, 32)], StepSize(0, 32, 2)),
        ([(0, 33)], StepSize(0, 64, 4)),
        ([(0, 9), (5, 9)], StepSize(0, 32, 2)),
        ([(0, 9), (5, 9), (0, 2)], StepSize(0, 64, 4)),
        ([(0, 2)] * 5, None),
        ([(0, 65)], None),
        ([(5, 1), (0, 9)], StepSize(6, 32, 2)),
        ([(5, 1)] * 6 + [(0, 40)], StepSize(6, 64, 4)),
        ([(5, 1)] * 7 + [(0, 40)], None),
        ([(5, 1)], None),
    ],
)
def test_a_step_takes_the_smallest_graph_that_holds_it(
    folder: Path, chunks: list[tuple[int, int]], size: StepSize | None
) -> None:
    cuda = PromptRunner(folder)
    made = [make_chunk(i, start=s, length=n) for i, (s, n) in enumerate(chunks, 1)]
    assert cuda.prompts.find(Plan(tuple(made))) == size


def test_scored_positions_need_rows_for_their_logits(folder: Path) -> None:
    cuda = PromptRunner(folder)

    def find(score_from: int) -> StepSize | None:
        scored = make_chunk(3, start=0, length=30, score_from=score_from)
        return cuda.prompts.find(Plan((*decodes(4, 5), scored)))

    assert find(25) == StepSize(6, 32, 2), "eight rows: two decode, one goes on, five are scored"
    assert find(24) == StepSize(6, 64, 4)
    assert find(21) is None


def test_a_replayed_step_is_one_copy_from_the_host(folder: Path) -> None:
    cuda = PromptRunner(folder)
    before = cuda.staging.num_copies
    cuda.replay(Plan((*decodes(3), make_chunk(7, start=0, length=9))))
    assert cuda.staging.num_copies == before + 1


def test_graphs_write_their_logits_to_one_place(folder: Path) -> None:
    recorded: list[Recording] = []

    def record(compute: Callable[[], Tensor]) -> Recording:
        recorded.append(EagerRecording(compute))
        return recorded[-1]

    cuda = CudaRunner(folder, max_rows=6, max_prompt_tokens=64, record=record)
    assert isinstance(cuda.execution, CapturedExecution)
    assert cuda.execution.prompts is not None
    of_prompts = recorded[-len(cuda.execution.prompts.sizes) :]
    assert [len(one.output) for one in of_prompts] == [10, 4, 8, 2], "the largest first"
    assert len({one.output.data_ptr() for one in of_prompts}) == 1


def test_models_with_states_run_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_model("lfm2", tmp_path)
    cuda = CudaRunner(tmp_path, max_rows=4, max_prompt_tokens=64)
    assert isinstance(cuda.execution, CapturedExecution)
    assert cuda.execution.prompts is None
    assert "steps with prompts are not captured: the model keeps states" in caplog.text


def test_prompts_that_cannot_be_captured_leave_decode_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> Tensor:
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(PromptGraphs, "_compute", refuse)
    cuda = CudaRunner(folder, max_rows=4, max_prompt_tokens=64)
    assert isinstance(cuda.execution, CapturedExecution)
    assert cuda.execution.prompts is None
    assert "steps with prompts are not captured, they run as they are: called a" in caplog.text
    driver = drive(cuda.runner, num_blocks=20, max_running=4, max_step_tokens=24)
    driver.scheduler.add(greedy_request(1, (1, 2, 3), 5))
    driver.run()
    assert len(driver.answers[1]) == 5
    assert cuda.graphs.num_replays > 0


@pytest.mark.parametrize("is_wanted", [True, False])
def test_the_switch_is_obeyed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_wanted: bool
) -> None:
    staging = Staging.for_steps(CPU, max_tokens=1024, max_rows=8, max_blocks=256)
    monkeypatch.setattr(build, "_attention", lambda *_: ([PlainBackend()], staging))
    monkeypatch.setattr("millstream.model.cuda.capture.CudaRecorder", lambda _: EagerRecording)
    settings = Settings(model_id=str(folder), max_concurrent_requests=8)
    execution = build.runner_factory(
        folder, settings, Speedups(prompt_graphs=is_wanted)
    )().execution
    assert isinstance(execution, CapturedExecution)
    assert (execution.prompts is not None) == is_wanted
