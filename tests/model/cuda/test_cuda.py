"""What is decided for a CUDA device, on the CPU: the captured steps are recorded by a stand-in."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from millstream.core.plan import Chunk, Plan, StepOutput
from millstream.core.request import Request, SamplingParams
from millstream.model import reference
from millstream.model.attention import LayerOptions
from millstream.model.cuda.backend_trial import BackendTrial
from millstream.model.cuda.backends import VarlenBackend
from millstream.model.cuda.capture import CapturedExecution, capture_decodes
from millstream.model.cuda.graph_sizes import GraphSizes
from millstream.model.cuda.graphs import DecodeGraphs, buckets, can_replay
from millstream.model.cuda.recording import Record, Recording
from millstream.model.cuda.selection import find_backends
from millstream.model.cuda.staging import Staging
from millstream.model.execution import EagerExecution
from millstream.model.paging import layout
from millstream.model.paging.backend import AttentionBackend
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.packer import Packer
from millstream.model.paging.step import HostSpan, Span
from millstream.model.runner import ModelRunner
from millstream.model.sampling import draws, filters, sampler
from millstream.model.sampling.sampler import Sampler
from millstream.model.transfers import pack_bytes, unpack_bytes
from tests.fakes import WholeSteps
from tests.model.architectures import make_model
from tests.model.cuda.plain_prompts import attend_to_prompts
from tests.model.steps import run_step
from tests.model.test_architectures import greedy_request, make_runner, random_prompts
from tests.model.test_schedules import BLOCK_SIZE, STATE_SLOTS, drive, random_request

CPU = torch.device("cpu")


class PlainBackend:
    """Plain torch in the place of a device's kernels. Notes how often it was asked."""

    def __init__(self, *, handles_all: bool = True) -> None:
        self.name = "plain"
        self.is_capturable = handles_all
        self.num_decodes = self.num_prefills = 0

    def handles(self, options: LayerOptions) -> bool:
        return self.is_capturable or options.window is None

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        self.num_decodes += 1
        assert span.tables.dtype == span.ends.dtype == span.firsts.dtype == torch.int32
        assert (span.ends == span.starts + 1).all()
        assert span.firsts.tolist() == list(range(len(query) + 1))
        return reference.paged_attention_decode(
            query,
            keys,
            values,
            span.tables,
            span.starts,
            scale=options.scale,
            window=options.window,
            chunk=options.chunk,
            softcap=options.softcap,
            sinks=options.sinks,
        )

    def prefill(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        self.num_prefills += 1
        lengths = span.firsts.diff().long()
        assert torch.equal(span.lengths.long(), lengths)
        assert (span.ends == span.starts + lengths).all()
        if span.host is not None:
            assert int(lengths.max()) == span.longest
            assert int(span.ends.max()) == span.longest_context
        return attend_to_prompts(
            query,
            keys,
            values,
            span.tables,
            starts=span.starts,
            firsts=span.firsts,
            options=options,
        )


class EagerRecording:
    """Computes again what was recorded, into the memory of the first result."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self._compute = compute
        self.output = compute()
        self.num_bytes = 0
        self.num_replays = 0

    def replay(self) -> None:
        self.num_replays += 1
        self.output.copy_(self._compute())


class CudaRunner:
    """A runner on the CPU that takes the steps of one on a CUDA device."""

    def __init__(
        self,
        folder: Path,
        *,
        max_rows: int,
        record: Record = EagerRecording,
        handles_all: bool = True,
        captures_draws: bool = True,
        max_prompt_tokens: int = 0,
    ) -> None:
        plain = make_runner(folder, block_size=BLOCK_SIZE)
        cache = plain.cache
        max_blocks = -(-plain.info.max_context // cache.block_size)
        self.backend = PlainBackend(handles_all=handles_all)
        self.staging = Staging.for_steps(
            CPU, max_tokens=512, max_rows=max_rows, max_blocks=max_blocks
        )
        execution = plain.execution
        self.execution = capture_decodes(
            EagerExecution(
                Packer(cache, [self.backend], self.staging, states=plain.states),
                execution.forward,
                execution.threads,
            ),
            cache=cache,
            staging=self.staging,
            backends=[self.backend],
            max_rows=max_rows,
            max_blocks=max_blocks,
            device=CPU,
            sizes=GraphSizes.of(
                max_rows=max_rows, max_prompt_tokens=max_prompt_tokens, draws=captures_draws
            ),
            states=plain.states,
            record=record,
        )
        self.runner = ModelRunner(
            execution=self.execution,
            sampler=Sampler(),
            cache=cache,
            info=plain.info,
            states=plain.states,
        )

    @property
    def graphs(self) -> DecodeGraphs:
        assert isinstance(self.execution, CapturedExecution)
        return self.execution.graphs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama-2")
    make_model("llama", folder, num_hidden_layers=2)
    return folder


def run_all(
    runner: ModelRunner,
    requests: list[Request],
    source: random.Random,
    *,
    plans_ahead: bool = False,
) -> dict:  # type: ignore[type-arg]
    driver = drive(
        runner,
        num_blocks=source.randint(12, 24),
        max_running=source.randint(2, 6),
        max_step_tokens=source.randint(8, 40),
        plans_ahead=lambda: plans_ahead,
    )
    for request in requests:
        driver.scheduler.add(request)
        for _ in range(source.choice([0, 1, 4])):
            driver.step()
    driver.run()
    driver.assert_clean()
    assert (driver.num_ahead > 0) == plans_ahead
    logprobs = {i: [found.token_id for found in driver.logprobs[i]] for i in driver.finished}
    return {i: (driver.answers[i], driver.finished[i], logprobs[i]) for i in driver.finished}


def test_buckets_hold_every_step() -> None:
    assert buckets(1) == [1]
    assert buckets(3) == [1, 2, 3]
    assert buckets(40) == [1, 2, 4, 8, 16, 24, 32, 40]
    assert buckets(1000)[-2:] == [248, 256]
    for most in range(1, 300):
        sizes = buckets(most)
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == min(most, 256)


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_replayed_steps_answer_as_steps_that_run(
    folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *, plans_ahead: bool
) -> None:
    monkeypatch.setattr(filters, "LEADER_COUNTS", (4, 32))
    source = random.Random(seed)
    requests = [random_request(source, i, None) for i in range(1, source.randint(4, 8))]
    plain = run_all(make_runner(folder, block_size=BLOCK_SIZE), requests, random.Random(seed))
    cuda = CudaRunner(folder, max_rows=6)
    assert cuda.graphs.sizes == [1, 2, 4, 6]
    found = run_all(cuda.runner, requests, random.Random(seed), plans_ahead=plans_ahead)
    assert found == plain
    assert cuda.graphs.num_replays > 5
    assert cuda.backend.num_prefills > 0


@pytest.fixture(scope="module")
def hybrid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lfm2")
    make_model("lfm2", folder)
    return folder


@pytest.mark.parametrize("plans_ahead", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_replayed_steps_carry_states(
    hybrid_folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *, plans_ahead: bool
) -> None:
    """Steps planned ahead may turn out to be void: the state before them is needed again."""
    monkeypatch.setattr(filters, "LEADER_COUNTS", (2, 4))
    source = random.Random(seed)
    requests = [random_request(source, i, None) for i in range(1, source.randint(4, 8))]
    plain = run_all(
        make_runner(hybrid_folder, block_size=BLOCK_SIZE), requests, random.Random(seed)
    )
    cuda = CudaRunner(hybrid_folder, max_rows=6)
    found = run_all(cuda.runner, requests, random.Random(seed), plans_ahead=plans_ahead)
    assert found == plain
    assert cuda.graphs.num_replays > 5
    states = cuda.runner.states
    assert states is not None
    used = next(iter(states.tensors.values()))[: states.spare_slot].flatten(1).any(1).sum()
    assert used <= STATE_SLOTS, "a slot that the scheduler does not own"


def test_other_steps_run_as_they_are(folder: Path) -> None:
    cuda = CudaRunner(folder, max_rows=4)
    runner, graphs = cuda.runner, cuda.graphs
    seen: list[tuple[bool, bool]] = []

    class Watching(WholeSteps):
        info = runner.info

        def step(self, plan: Plan) -> StepOutput:
            before = graphs.num_replays
            output = run_step(runner, plan)
            seen.append((can_replay(plan) and len(plan.chunks) <= 4, graphs.num_replays > before))
            return output

    driver = drive(Watching(), num_blocks=40, max_running=6, max_step_tokens=32)  # type: ignore[arg-type]
    for number, prompt in enumerate(random_prompts(6, seed=3, longest=40), 1):
        sampling = SamplingParams(temperature=0.0)
        driver.scheduler.add(
            Request(
                id=number,
                prompt=prompt,
                sampling=sampling,
                max_tokens=4 + 4 * number,
                prompt_logprobs=1 if number == 2 else None,
            )
        )
        driver.step()
    driver.run()
    assert all(could == did for could, did in seen)
    assert {could for could, _ in seen} == {True, False}


def test_rows_for_nobody_touch_the_spare_block_only(folder: Path) -> None:
    cuda = CudaRunner(folder, max_rows=8)
    runner, cache = cuda.runner, cuda.runner.cache
    driver = drive(runner, num_blocks=20, max_running=3, max_step_tokens=64)
    for number, prompt in enumerate(random_prompts(3, seed=4, longest=20), 1):
        driver.scheduler.add(greedy_request(number, prompt, 6))
    driver.run()
    assert cuda.graphs.num_replays > 0
    for tensor in (*cache.keys.values(), *cache.values.values()):
        assert not tensor[cache.padding_block].any()
        assert not tensor[20 : cache.num_blocks].any(), "a block that the scheduler does not own"
        assert tensor[cache.spare_block, 0].any()
        assert not tensor[cache.spare_block, 1:].any()


def test_layers_no_backend_knows_are_gathered(tmp_path: Path) -> None:
    """Gemma 3 has layers with a window and without: some are attended by the backend, some not."""
    make_model("gemma3_text", tmp_path)
    requests = [greedy_request(i, p, 12) for i, p in enumerate(random_prompts(4, seed=2), 1)]
    plain = run_all(make_runner(tmp_path, block_size=8), requests, random.Random(0))
    cuda = CudaRunner(tmp_path, max_rows=6, handles_all=False)
    assert run_all(cuda.runner, requests, random.Random(0)) == plain
    assert isinstance(cuda.execution, EagerExecution), (
        "gathering depends on lengths, so it cannot be captured"
    )
    assert cuda.backend.num_decodes > 0


def test_a_step_is_one_copy(folder: Path) -> None:
    cuda = CudaRunner(folder, max_rows=4)
    runner, staging = cuda.runner, cuda.staging
    driver = drive(runner, num_blocks=20, max_running=4, max_step_tokens=24)
    for number, prompt in enumerate(random_prompts(5, seed=6, longest=30), 1):
        driver.scheduler.add(greedy_request(number, prompt, 8))
    before = staging.num_copies
    driver.run()
    assert staging.num_copies - before == len(driver.plans)


def test_a_replayed_step_finds_the_tokens_before_it_on_the_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which ones they are travels with its one copy."""
    cuda = CudaRunner(folder, max_rows=4)
    driver = drive(
        cuda.runner, num_blocks=40, max_running=3, max_step_tokens=64, plans_ahead=lambda: True
    )
    for number, prompt in enumerate(random_prompts(3, seed=6, longest=20), 1):
        driver.scheduler.add(greedy_request(number, prompt, 12))
    driver.step()

    def refuse(tensor: Tensor, device: torch.device) -> Tensor:
        raise AssertionError("another copy")

    for module in (layout, draws, sampler):
        monkeypatch.setattr(module, "upload", refuse, raising=False)
    before = cuda.graphs.num_replays
    driver.run()
    assert cuda.graphs.num_replays - before >= 10
    assert driver.num_ahead >= 10


def test_a_model_that_cannot_be_captured_runs_as_it_is(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(compute: Callable[[], Tensor]) -> Recording:
        raise RuntimeError("called a synchronizing CUDA operation")

    cuda = CudaRunner(folder, max_rows=4, record=refuse)
    runner = cuda.runner
    assert isinstance(cuda.execution, EagerExecution)
    assert "called a synchronizing CUDA operation" in caplog.text
    driver = drive(runner, num_blocks=20, max_running=4, max_step_tokens=24)
    driver.scheduler.add(greedy_request(1, (1, 2, 3), 5))
    driver.run()
    assert len(driver.answers[1]) == 5


def test_graphs_of_all_sizes_have_one_memory_for_logits(folder: Path) -> None:
    made: list[EagerRecording] = []

    def record(compute: Callable[[], Tensor]) -> Recording:
        made.append(EagerRecording(compute))
        return made[-1]

    cuda = CudaRunner(folder, max_rows=6, record=record, captures_draws=False)
    assert [len(recording.output) for recording in made] == cuda.graphs.sizes[::-1]
    assert len({recording.output.untyped_storage().data_ptr() for recording in made}) == 1


def test_largest_step_fits_the_staging_memory() -> None:
    cache = KVCache({}, num_blocks=64, block_size=4, dtype=torch.float32, device=CPU)
    staging = Staging.for_steps(CPU, max_tokens=32, max_rows=8, max_blocks=16)
    assert staging.num_bytes < 4096
    packer = Packer(cache, [], staging)
    from_first = [greedy_request(i, (1,) * 64, 1) for i in range(8)]
    table = list(range(16))

    def chunk(request: Request, start: int, length: int) -> Chunk:
        return Chunk(request, (1,) * length, start, table, [1] * 64, is_last=True, score_from=0)

    chunks = tuple(chunk(request, 60, 4) for request in from_first)
    step = packer.pack(Plan(chunks))
    assert step.input_ids.shape == (1, 32)


def test_staging_gives_what_was_put_and_reuses_its_memory() -> None:
    staging = Staging(CPU, 200)
    for offset in (0, 5):
        staging.begin()
        wide = staging.put(np.arange(offset, offset + 3))
        narrow = staging.put(np.arange(4, dtype=np.int32).reshape(2, 2) + offset)
        none = staging.put(np.zeros(0, np.int64))
        last = staging.put(np.array([[7, 8]]).T + offset)
        staging.flush()
        assert wide.tolist() == [offset, offset + 1, offset + 2]
        assert narrow.tolist() == [[offset, offset + 1], [offset + 2, offset + 3]]
        assert none.tolist() == []
        assert last.tolist() == [[7 + offset], [8 + offset]]
    with pytest.raises(AssertionError, match="larger than the largest"):
        staging.put(np.zeros(200, np.int64))


def test_tensors_of_all_types_travel_in_one() -> None:
    tensors = [
        torch.tensor([True, False, True]),
        torch.tensor([1.5, -2.0]),
        torch.arange(6).view(2, 3).t(),
        torch.zeros(0, 4),
        torch.tensor([2**40]),
    ]
    for some in (tensors, tensors[2:3]):
        packed, order = pack_bytes(some)
        assert packed.dtype == torch.uint8
        back = unpack_bytes(packed, some, order)
        assert [tensor.tolist() for tensor in back] == [tensor.tolist() for tensor in some]


@pytest.fixture
def candidates() -> Callable[..., list[AttentionBackend]]:
    shapes = [LayerShape(2, 16, 16), LayerShape(1, 24, 8), LayerShape(2, 16, 16)]

    def find(**made: Callable[[], AttentionBackend]) -> list[AttentionBackend]:
        return find_backends(
            shapes,
            num_heads=lambda shape: 2 * shape.kv_heads,
            block_size=16,
            dtype=torch.float32,
            device=CPU,
            candidates=made,
        )

    return find


def test_backends_that_compute_something_else_are_not_used(
    candidates: Callable[..., list[AttentionBackend]],
) -> None:
    class Wrong(PlainBackend):
        def decode(self, *args: object) -> Tensor:
            return super().decode(*args) + 1e-3  # type: ignore[arg-type]

    class Broken(PlainBackend):
        def prefill(self, *args: object) -> Tensor:
            raise RuntimeError("no kernel image")

    class WrongWhereFilledUp(PlainBackend):
        def prefill(self, query: Tensor, *others: Any) -> Tensor:
            found = super().prefill(query, *others)
            return found if len(query) < 96 else found + 1e-3

    right = PlainBackend()
    assert candidates(varlen=WrongWhereFilledUp, triton=lambda: right) == [right]
    assert candidates(varlen=PlainBackend, triton=lambda: right)[1] is right
    assert candidates(varlen=Wrong, triton=lambda: right) == [right]
    assert candidates(varlen=Broken, triton=lambda: right) == [right]
    assert candidates(varlen=Broken, triton=Wrong) == []


def test_the_name_of_attention_is_that_of_its_backends() -> None:
    cache = KVCache({}, num_blocks=1, block_size=4, dtype=torch.float32, device=CPU)
    assert Packer(cache).backend_name == "sdpa-paged"
    assert Packer(cache, [PlainBackend(), PlainBackend()]).backend_name == "plain+plain"


def test_varlen_is_asked_for_what_it_knows() -> None:
    """torch's function over a block table, by the words of its documentation."""

    def varlen_attn(  # type: ignore[no-untyped-def]
        query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size,
        enable_gqa, seqused_k, block_table,
    ) -> Tensor:  # fmt: skip
        assert cu_seq_k is None
        assert enable_gqa
        lengths = cu_seq_q.diff().long()
        assert max_q == int(lengths.max())
        assert max_k >= int(seqused_k.max())
        left, right = window_size
        assert right == 0
        return reference.paged_attention_prefill(
            query,
            key,
            value,
            block_table,
            seqused_k - lengths,
            lengths,
            scale=scale,
            window=None if left < 0 else left + 1,
        )

    trial = BackendTrial(
        LayerShape(2, 16, 16), num_heads=4, block_size=16, dtype=torch.float32, device=CPU
    )
    checks = list(trial.samples(VarlenBackend(varlen_attn)))
    assert len(checks) == 4, "with and without a window; no soft cap, no sinks"
    for _, actual, expected in checks:
        torch.testing.assert_close(actual, expected)


def test_span_of_lengths() -> None:
    host = HostSpan.of_chunks(np.zeros((2, 3), np.int32), np.array([4, 0]), np.array([1, 5]))
    span = host.put(torch.from_numpy)
    assert span.ends.tolist() == [5, 5]
    assert span.longest_context == 5
    assert span.lengths.tolist() == [1, 5]
    assert span.firsts.tolist() == [0, 1, 6]
    assert span.longest == 5


def test_graphs_of_a_size_without_room_are_not_asked(folder: Path) -> None:
    cuda = CudaRunner(folder, max_rows=2)
    runner = cuda.runner
    driver = drive(runner, num_blocks=30, max_running=3, max_step_tokens=24)
    for number in (1, 2, 3):
        driver.scheduler.add(greedy_request(number, (number, 5), 6))
    driver.step()
    driver.step()
    assert cuda.graphs.num_replays == 0
