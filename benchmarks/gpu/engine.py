"""Runners over models made on the device, and requests to run on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from millstream.core.blocks import BlockPool
from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams, TokenEvent
from millstream.core.scheduler import Scheduler
from millstream.model.attention import register
from millstream.model.build import build_runner
from millstream.model.cuda.capture import CapturedExecution
from millstream.model.loading.model import LoadedModel
from millstream.model.runner import ModelRunner
from millstream.model.speedups import Speedups
from millstream.settings import Settings

BLOCK_SIZE = 16
GREEDY = SamplingParams(temperature=0.0)

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
             "vocab_size": 512},
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
           "vocab_size": 128_256, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
           "vocab_size": 128_256},
}  # fmt: skip
"""Llama 3's shapes, and one for dry runs."""


def make_llama(shape: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Random weights, drawn on the device."""
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def make_runner(
    model: PreTrainedModel,
    *,
    max_context: int,
    max_rows: int,
    block_size: int = BLOCK_SIZE,
    is_shared: bool = False,
    speedups: Speedups | None = None,
) -> ModelRunner:
    """A runner whose cache holds `max_rows` sequences of `max_context` tokens.

    is_shared: transformers' own loops use the model, too, so its modules stay as they are.
    """
    register()
    config = model.config.get_text_config()
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers, width = config.num_hidden_layers, 2 * config.num_attention_heads * dim
    most = (max_rows * max_context + block_size) * layers * width * model.dtype.itemsize
    settings = Settings(
        model_id="benchmark",
        native_kernels="off",
        quantize="none",
        block_size=block_size,
        kv_cache_memory=most if model.device.type == "cpu" else None,
        max_batch_prefill_tokens=4096 if max_rows > 8 else 64,
        max_concurrent_requests=max_rows,
    )
    loaded = LoadedModel(
        model=model,
        device=model.device,
        dtype=model.dtype,
        quantization=None,
        max_context=max_context,
        stop_token_ids=(),
        is_shared=is_shared,
    )
    return build_runner(loaded, settings, speedups=speedups)


def decode_plan(*, rows: int, context: int, vocab: int, sampling: SamplingParams = GREEDY) -> Plan:
    """A step of one token of each of `rows` sequences, whose blocks lie in random places."""
    width = -(-context // BLOCK_SIZE)
    order = torch.randperm(rows * width, generator=torch.Generator().manual_seed(0))
    history = [number * 37 % vocab for number in range(context)]
    chunks = [
        Chunk(
            Request(id=i + 1, prompt=tuple(history[:-1]), sampling=sampling, max_tokens=context),
            (history[-1],),
            context - 1,
            table,
            history,
            is_last=True,
        )
        for i, table in enumerate(order.view(rows, width).tolist())
    ]
    return Plan(tuple(chunks))


def prefill_plan(*, tokens: int, vocab: int) -> Plan:
    """One prompt of so many tokens, computed at once."""
    history = [number * 37 % vocab for number in range(tokens)]
    request = Request(id=1, prompt=tuple(history), sampling=GREEDY, max_tokens=1)
    table = list(range(-(-tokens // BLOCK_SIZE)))
    return Plan((Chunk(request, tuple(history), 0, table, history, is_last=True),))


def mixed_plan(*, rows: int, context: int, tokens: int, vocab: int) -> Plan:
    """A step of `decode_plan()`, and one prompt of so many tokens beside it."""
    decodes = decode_plan(rows=rows, context=context, vocab=vocab)
    (prompt,) = prefill_plan(tokens=tokens, vocab=vocab).chunks
    taken = rows * -(-context // BLOCK_SIZE)
    table = [taken + block for block in prompt.block_table]
    request = replace(prompt.request, id=rows + 1)
    return Plan((*decodes.chunks, prompt._replace(request=request, block_table=table)))


def answers(
    runner: ModelRunner,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    max_rows: int,
    max_step_tokens: int,
    num_blocks: int = 0,
    plans_ahead: bool = True,
    sampling: Sequence[SamplingParams] = (GREEDY,),
) -> list[list[int]]:
    """Runs requests together, as the engine does. plans_ahead: as it does on CUDA devices, or each
    step when the one before is over. sampling: of the first requests, and so on in turns."""
    info = runner.info
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=num_blocks or info.num_blocks, block_size=info.block_size),
        max_running=max_rows,
        max_step_tokens=max_step_tokens,
    )
    for i, prompt in enumerate(prompts):
        params = sampling[i % len(sampling)]
        scheduler.add(Request(id=i, prompt=tuple(prompt), sampling=params, max_tokens=max_tokens))
    found: list[list[int]] = [[] for _ in prompts]
    for events in run(runner, scheduler, plans_ahead=plans_ahead):
        for event in events:
            found[event.request_id] += event.token_ids
    return found


def run(
    runner: ModelRunner, scheduler: Scheduler, *, plans_ahead: bool = True
) -> Iterator[list[TokenEvent]]:
    """Runs steps until nobody waits for one, and yields the events of each. Requests may be added
    between two of them. plans_ahead: as `answers()` has it."""
    plan, step = scheduler.plan(), None
    while plan is not None:
        step = step or runner.draw(runner.launch(plan))
        ahead = scheduler.plan() if plans_ahead else None
        launched = None if ahead is None else runner.launch(ahead, step)
        events = scheduler.commit(plan, runner.finish(step))
        step = None
        if launched is not None:
            step = runner.draw(launched, is_wanted=scheduler.is_wanted)
        yield events
        plan = ahead or scheduler.plan()


def free_memory(runner: ModelRunner, device: torch.device) -> None:
    """Gives up the cache, since transformers' own needs the memory."""
    runner.cache.keys.clear()
    runner.cache.values.clear()
    if isinstance(runner.execution, CapturedExecution):
        runner.execution = runner.execution.eager
    if device.type == "cuda":
        torch.cuda.empty_cache()
