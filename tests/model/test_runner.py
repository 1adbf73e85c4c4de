"""The runner: exact beside others, exact in chunks, honest about what it cannot do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from millstream.core.blocks import BlockPool
from millstream.core.plan import Chunk, Plan
from millstream.core.request import FailureEvent, Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.errors import StartupError
from millstream.model import attention
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.packer import Packer
from millstream.model.runner import ModelRunner
from millstream.runtime.loop import EngineLoop
from millstream.runtime.messages import Add, FromEngine, Step, Stop, ToEngine
from tests.model.architectures import VOCAB, greedy, make_model
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama-8")
    make_model("llama", folder, num_hidden_layers=8)
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> ModelRunner:
    return make_runner(folder, block_size=8)


def mixed_requests(count: int, *, seed: int) -> list[Request]:
    """Half greedy, half seeded with all sampling options, lengths mixed."""
    source = random.Random(seed)
    prompts = random_prompts(count, seed=seed)
    return [
        Request(
            id=index,
            prompt=prompt,
            sampling=SamplingParams(
                temperature=source.choice([0.0, 0.0, 0.7, 1.3]),
                top_k=source.choice([0, 20]),
                top_p=source.choice([1.0, 0.9]),
                seed=index,
            ),
            max_tokens=source.randint(4, 32),
        )
        for index, prompt in enumerate(prompts)
    ]


def test_sixteen_together_equal_each_alone(runner: ModelRunner) -> None:
    requests = mixed_requests(16, seed=2)
    together = answers(runner, requests, max_step_tokens=48)
    for request in requests:
        assert answers(runner, [request], max_step_tokens=512)[request.id] == together[request.id]


@pytest.mark.parametrize("seed", range(12))
def test_any_schedule_gives_the_same(runner: ModelRunner, seed: int) -> None:
    requests = mixed_requests(6, seed=100 + seed)
    alone = {r.id: answers(runner, [r], max_step_tokens=512)[r.id] for r in requests}
    source = random.Random(seed)
    budget, blocks = source.randint(8, 40), source.randint(14, 40)
    assert answers(runner, requests, max_step_tokens=budget, num_blocks=blocks) == alone


def test_logits_equal_the_model_itself(folder: Path, runner: ModelRunner) -> None:
    model = make_model("llama", folder, num_hidden_layers=8)
    prompt = random_prompts(1, seed=9)[0]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    table = list(range(len(prompt) // 8 + 1))[::-1]
    chunk = Chunk(greedy_request(1, prompt, 1), prompt, 0, table, list(prompt), is_last=True)
    torch.testing.assert_close(runner.logits(Plan((chunk,)))[0], expected, rtol=1e-4, atol=1e-4)


def test_wrong_attention_is_refused_at_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose attention asks for something we do not do must not be served."""
    real = attention.attend_dense

    def without_scale(*args: Any) -> torch.Tensor:
        *tensors, options = args
        return real(*tensors, attention.LayerOptions(options.scale * 1.5, options.window))

    monkeypatch.setattr("millstream.model.paging.gathered.attend_dense", without_scale)
    with pytest.raises(StartupError, match="computes other logits"):
        make_runner(folder)


def test_verify_notices_a_mixed_up_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Packer.pack

    def shifted(self: Packer, plan: Plan) -> Any:
        (chunk,) = plan.chunks
        table = chunk.block_table if chunk.start == 0 else chunk.block_table[::-1]
        return real(self, Plan((chunk._replace(block_table=table),)))

    monkeypatch.setattr(Packer, "pack", shifted)
    with pytest.raises(StartupError, match="computes other logits"):
        make_runner(folder, block_size=8)


def test_cache_is_sized_as_told_and_refuses_what_is_not_there(folder: Path) -> None:
    runner = make_runner(folder, kv_cache_memory=200_000, block_size=8)
    # 8 layers x 2 kv heads x 16 dims x (key + value) x 4 bytes
    block_bytes = 8 * (8 * 2 * 16 * 2 * 4)
    assert runner.info.num_blocks == 200_000 // block_bytes
    assert runner.info.kv_cache_bytes <= 200_000
    assert runner.info.max_context == runner.info.num_blocks * 8
    with pytest.raises(StartupError, match="--kv-cache-memory"):
        make_runner(folder, kv_cache_memory=2**60)
    with pytest.raises(StartupError, match="no room for the KV cache"):
        make_runner(folder, kv_cache_memory=10)


def test_context_may_be_shortened_but_not_stretched(folder: Path) -> None:
    assert make_runner(folder, max_total_tokens=100).info.max_context == 100
    with pytest.raises(StartupError, match="--max-total-tokens"):
        make_runner(folder, max_total_tokens=257)


def test_vocabulary_and_defaults_come_from_the_model(runner: ModelRunner) -> None:
    info = runner.info
    assert (info.vocab_size, info.architecture) == (VOCAB, "LlamaForCausalLM")
    assert (info.dtype, info.device, info.stop_token_ids) == ("float32", "cpu", ())


def test_poisoned_request_fails_alone_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Token 13 has a NaN embedding: its keys and values are NaN, in blocks that others get next."""
    model = make_model("llama", tmp_path, tie_word_embeddings=False)
    poisoned = 13
    prompts = [
        tuple(token for token in prompt if token != poisoned)
        for prompt in random_prompts(5, seed=3)
    ]
    healthy = [greedy_request(index, prompt, 12) for index, prompt in enumerate(prompts)]
    expected = {request.id: greedy(model, request.prompt, 12) for request in healthy}
    assert not any(poisoned in answer for answer in expected.values())
    with torch.no_grad():
        model.get_input_embeddings().weight[poisoned] = float("nan")
    model.save_pretrained(tmp_path)
    runner = make_runner(tmp_path, block_size=8)
    channel = ScriptedChannel(
        # First, so that it gets the first blocks; then neighbours; then those who reuse them.
        [Add(greedy_request(100, (5, poisoned, 7), 12)), *map(Add, healthy[:2])],
        [Add(request) for request in healthy[2:]],
    )
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=24, block_size=8), max_running=3, max_step_tokens=64
    )
    EngineLoop(scheduler=scheduler, runner=runner, channel=channel).run()
    assert {f.request_id: f.code for f in channel.failures} == {100: "nan_logits"}
    assert channel.answers == expected


class ScriptedChannel:
    """Feeds the loop: the first messages at once, the others when it is idle, then Stop."""

    def __init__(self, first: list[ToEngine], later: list[ToEngine]) -> None:
        self._now = list(first)
        self._later = list(later)
        self.failures: list[FailureEvent] = []
        self.answers: dict[int, list[int]] = {}

    def receive_nowait(self) -> ToEngine | None:
        return self._now.pop(0) if self._now else None

    def receive(self) -> ToEngine:
        return self._later.pop(0) if self._later else Stop()

    def send(self, message: FromEngine) -> None:
        assert isinstance(message, Step)
        self.failures += message.failures
        for event in message.tokens:
            self.answers.setdefault(event.request_id, []).extend(event.token_ids)


def test_short_tables_are_padded_with_a_block_nobody_owns() -> None:
    shape = {0: LayerShape(1, 2, 2)}
    cache = KVCache(
        shape, num_blocks=4, block_size=8, dtype=torch.float32, device=torch.device("cpu")
    )
    requests = [greedy_request(i, (1,), 1) for i in range(2)]
    chunks = [Chunk(requests[i], (1,), 8 * i, [3, 2][: i + 1], [1], is_last=True) for i in range(2)]
    decodes = Packer(cache).pack(Plan(tuple(chunks))).batch.step.decodes
    assert decodes is not None
    assert decodes.tables.tolist() == [[3, 4], [3, 2]]
    assert len(cache.keys[0]) == 6, "one more for rows that nobody asked for"
