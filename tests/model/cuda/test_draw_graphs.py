"""Draws captured behind a step, recorded by a stand-in: the same tokens with less to launch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from millstream.core.plan import UNKNOWN_TOKEN, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.cuda.draw_graphs import DrawGraphs
from millstream.model.cuda.recording import Recording
from millstream.model.sampling import filters
from millstream.model.sampling.ahead import DrawnAhead, Kind
from millstream.model.sampling.draws import Row
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import CudaRunner, EagerRecording, run_all
from tests.model.sampling_cases import make_chunk, without_constraints
from tests.model.steps import run_step
from tests.model.test_architectures import make_runner
from tests.model.test_schedules import BLOCK_SIZE, random_request

CHOICES = {
    "greedy": SamplingParams(temperature=0.0),
    "temperature": SamplingParams(temperature=0.8, seed=3),
    "filters": SamplingParams(temperature=0.8, top_k=20, top_p=0.9, seed=3),
    "log probabilities": SamplingParams(temperature=0.0, logprobs=2),
    "a penalty": SamplingParams(temperature=0.8, presence_penalty=0.5, seed=3),
}
# What a device would see of these is nothing, or a part of a copy.
VIEWS = ("slice", "select", "view", "unsqueeze", "detach", "alias", "_unsafe_view", "lift_fresh")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama-2")
    make_model("llama", folder, num_hidden_layers=2)
    return folder


@pytest.fixture(scope="module")
def hybrid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lfm2")
    make_model("lfm2", folder)
    return folder


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Kind, bool]]:
    """Steps that were drawn in graphs, by their kind, and by whether all their rows were."""
    counts: Counter[tuple[Kind, bool]] = Counter()
    draw = DrawGraphs.draw

    def counting(self: DrawGraphs, rows: list[Row | None], size: int, kind: Kind) -> DrawnAhead:
        counts[kind, None not in rows] += 1
        return draw(self, rows, size, kind)

    monkeypatch.setattr(DrawGraphs, "draw", counting)
    return counts


def mostly_plain(source: random.Random, number: int, plain_share: float) -> Request:
    request = random_request(source, number, None)
    if source.random() >= plain_share:
        return request
    sampling = replace(without_constraints(request.sampling), typical_p=1.0)
    return replace(request, sampling=sampling, prompt_logprobs=None)


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("looks", [(4, 32), filters.LEADER_COUNTS])
@pytest.mark.parametrize("plain_share", [0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_captured_draws_give_what_launched_ones_give(
    folder: Path,
    seed: int,
    plain_share: float,
    looks: tuple[int, ...],
    kinds: Counter[tuple[Kind, bool]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    plans_ahead: bool,
) -> None:
    """Random batches, with rows that are undecided and rows that are drawn afterwards."""
    monkeypatch.setattr(filters, "LEADER_COUNTS", looks)
    source = random.Random(seed)
    requests = [mostly_plain(source, i, plain_share) for i in range(1, source.randint(5, 8))]
    plain = run_all(make_runner(folder, block_size=BLOCK_SIZE), requests, random.Random(seed))
    cuda = CudaRunner(folder, max_rows=6)
    found = run_all(cuda.runner, requests, random.Random(seed), plans_ahead=plans_ahead)
    assert found == plain
    assert sum(kinds.values()) == cuda.graphs.num_replays > 5
    assert any(kind is not Kind.GREEDY for kind, _ in kinds)
    if plain_share == 1.0 and max(looks) > 32:  # otherwise top_k=20 asks for more than a first look
        assert all(is_whole for _, is_whole in kinds)


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_with_states_draws_in_graphs(
    hybrid_folder: Path,
    seed: int,
    kinds: Counter[tuple[Kind, bool]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    plans_ahead: bool,
) -> None:
    monkeypatch.setattr(filters, "LEADER_COUNTS", (4, 32))
    source = random.Random(seed)
    requests = [mostly_plain(source, i, 0.8) for i in range(1, 7)]
    plain = run_all(
        make_runner(hybrid_folder, block_size=BLOCK_SIZE), requests, random.Random(seed)
    )
    cuda = CudaRunner(hybrid_folder, max_rows=6)
    found = run_all(cuda.runner, requests, random.Random(seed), plans_ahead=plans_ahead)
    assert found == plain
    assert sum(count for (kind, _), count in kinds.items() if kind is not Kind.GREEDY) > 5


@pytest.mark.parametrize("fails", [False, True])
def test_draws_can_be_left_outside_of_graphs(
    folder: Path,
    kinds: Counter[tuple[Kind, bool]],
    caplog: pytest.LogCaptureFixture,
    *,
    fails: bool,
) -> None:
    """Where they are not wanted, and where they cannot be captured: steps are captured still."""
    num_recorded = 0

    def record(compute: Callable[[], Tensor]) -> Recording:
        nonlocal num_recorded
        num_recorded += 1
        if num_recorded > 5:
            raise RuntimeError("operation not permitted when stream is capturing")
        return EagerRecording(compute)

    source = random.Random(5)
    requests = [mostly_plain(source, i, 0.7) for i in range(1, 7)]
    plain = run_all(make_runner(folder, block_size=BLOCK_SIZE), requests, random.Random(5))
    if fails:
        cuda = CudaRunner(folder, max_rows=6, record=record)
        assert "draws are not captured" in caplog.text
    else:
        cuda = CudaRunner(folder, max_rows=6, captures_draws=False)
    assert run_all(cuda.runner, requests, random.Random(5), plans_ahead=True) == plain
    assert cuda.graphs.num_replays > 5
    assert not kinds


class Launches(TorchDispatchMode):
    """Notes the operators that are called outside of recordings."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.num_replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))

    def record(self, compute: Callable[[], Tensor]) -> Recording:
        """A recording whose replay is one launch."""
        recording = EagerRecording(compute)
        replay = recording.replay

        def one_launch() -> None:
            noted = list(self.names)
            replay()
            self.names = noted
            self.num_replays += 1

        recording.replay = one_launch  # type: ignore[method-assign]
        return recording


def first_step(params: SamplingParams) -> Plan:
    """Three sequences that go on, each in a block of its own."""
    chunks = [
        make_chunk(params, request_id=i, prompt=(1, 2 + i))._replace(block_table=[i])
        for i in range(3)
    ]
    return Plan(tuple(chunks))


def planned_ahead(plan: Plan) -> Plan:
    """The step after it, whose tokens are not known."""
    return Plan(
        tuple(
            chunk._replace(tokens=(UNKNOWN_TOKEN,), start=chunk.start + 1) for chunk in plan.chunks
        )
    )


@pytest.mark.parametrize(
    ("name", "num_replays", "copies_of_logits"),
    [
        ("greedy", 1, []),
        ("temperature", 2, []),
        ("filters", 2, ["clone"]),
        ("log probabilities", 1, ["clone"]),
        ("a penalty", 1, ["clone"]),
    ],
)
def test_a_step_planned_ahead_launches_graphs_and_copies(
    folder: Path, name: str, num_replays: int, copies_of_logits: list[str]
) -> None:
    """Of the first three copies one comes from the host, and the others bring it to where graphs
    read. Logits are copied where somebody may read them when the step after this has begun."""
    launches = Launches()
    runner = CudaRunner(folder, max_rows=4, record=launches.record).runner
    plan = first_step(CHOICES[name])
    drawn = runner.draw(runner.launch(plan))
    launches.num_replays = 0
    with launches:
        launched = runner.launch(planned_ahead(plan), drawn)
        assert launches.num_replays == num_replays
        assert launches.names.count("clone") == len(copies_of_logits)
        if name != "a penalty":  # whose tokens come from elsewhere
            assert launches.names == ["copy_"] * 3 + copies_of_logits
            launches.names.clear()
            runner.draw(launched)
            assert launches.names == ["clone"]
    expected = run_step(make_runner(folder, block_size=BLOCK_SIZE), plan)
    assert runner.finish(drawn).tokens == expected.tokens
