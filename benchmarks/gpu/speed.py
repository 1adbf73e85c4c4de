"""How fast the device is, and which part of that the engine reaches."""

from __future__ import annotations

import time
import warnings

import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers import GenerationConfig, PreTrainedModel

from benchmarks.gpu.after_ready import report_late_kernels, report_memory
from benchmarks.gpu.engine import (
    answers,
    decode_plan,
    free_memory,
    make_llama,
    make_runner,
    prefill_plan,
)
from benchmarks.gpu.products import measure_products
from benchmarks.gpu.prompts import measure_prompt_beside
from benchmarks.gpu.report import Report, seconds_of
from benchmarks.gpu.sizes import Roof, Size
from benchmarks.steps import run_step
from millstream.core.plan import UNKNOWN_TOKEN, Plan
from millstream.core.request import SamplingParams
from millstream.model.attention import ATTENTION_NAME
from millstream.model.cuda.capture import CapturedExecution
from millstream.model.runner import ModelRunner

MIXED = SamplingParams(temperature=0.8, top_k=50, top_p=0.95, repetition_penalty=1.1, seed=1)


def measure_roof(report: Report, roof: Roof, size: Size) -> None:
    """Bandwidth of a large read and copy, and the peak of a large matrix product."""
    device = size.device
    data = torch.ones(size.copied_bytes // 2, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(data)
    copy = 2 * data.nbytes / seconds_of(lambda: target.copy_(data), device, rounds=size.rounds)
    wide = data.view(torch.float32)
    read = data.nbytes / seconds_of(wide.amax, device, rounds=size.rounds)
    roof.read = max(read, copy)
    report.add("copy, read and written", f"{copy / 1e9:,.0f} GB/s")
    report.add("read", f"{read / 1e9:,.0f} GB/s", "largest element of as many bytes")
    n = size.matrix
    a, b = (torch.randn(n, n, device=device).to(size.dtype) for _ in range(2))
    roof.operations = 2 * n**3 / seconds_of(lambda: a @ b, device, rounds=size.rounds)
    report.add("matrix product", f"{roof.operations / 1e12:,.1f} TFLOP/s", f"{n} cubed, random")


def measure_shape(report: Report, roof: Roof, size: Size, shape: str) -> None:
    """Decode and prefill of one shape; the first shape also beside transformers' own loop."""
    model = make_llama(shape, size.device, size.dtype)
    report.run(f"{shape} products", lambda: measure_products(report, roof, size, shape))
    own = make_llama(shape, size.device, size.dtype)
    runner = make_runner(own, max_context=size.max_context, max_rows=max(size.rows))
    report.add(f"{shape} attention", runner.info.attention_backend)
    report_memory(report, size, shape, runner, "when ready")
    for rows in size.rows:
        report.run(
            f"{shape} decode {rows}",
            lambda rows=rows: _decode(report, roof, size, shape, runner, model, rows),
        )
    report.run(f"{shape} prefill", lambda: _prefill(report, roof, size, shape, runner, model))
    report.run(
        f"{shape} prompt beside rows", lambda: measure_prompt_beside(report, size, shape, runner)
    )
    report.run(f"{shape} planned ahead", lambda: _planned_ahead(report, size, shape, runner))
    report.run(f"{shape} host waits", lambda: _host_waits(report, size, shape, runner))
    report.run(f"{shape} profile", lambda: _profile(report, size, shape, runner))
    report_late_kernels(report, shape, runner)
    report_memory(report, size, shape, runner, "after all steps")
    if shape == size.shapes[0]:
        report.run(f"{shape} same work", lambda: _same_work(report, size, shape, runner, model))


def _decode(
    report: Report,
    roof: Roof,
    size: Size,
    shape: str,
    runner: ModelRunner,
    model: PreTrainedModel,
    rows: int,
) -> None:
    plan = decode_plan(rows=rows, context=size.context, vocab=runner.info.vocab_size)
    taken = seconds_of(lambda: run_step(runner, plan), size.device, rounds=size.rounds)
    cache, captured = runner.cache, runner.execution
    per_token = cache.num_bytes / cache.num_blocks / cache.block_size
    num_bytes = _read_bytes(model) + rows * size.context * per_token
    share = num_bytes / taken / roof.read
    note = f"{taken * 1e3:.2f} ms a step, {share:.0%} of the bandwidth, context {size.context}"
    if isinstance(captured, CapturedExecution):
        runner.execution = captured.eager
        eager = seconds_of(lambda: run_step(runner, plan), size.device, rounds=size.rounds)
        runner.execution = captured
        note += f", {eager * 1e3:.2f} ms without graphs"
    report.add(f"{shape} decode, {rows} sequences", f"{rows / taken:,.0f} tokens/s", note)


def _prefill(
    report: Report, roof: Roof, size: Size, shape: str, runner: ModelRunner, model: PreTrainedModel
) -> None:
    tokens = min(size.prompt, runner.info.max_context)
    plan = prefill_plan(tokens=tokens, vocab=runner.info.vocab_size)
    taken = seconds_of(lambda: run_step(runner, plan), size.device, rounds=size.rounds)
    config = model.config
    width = config.num_attention_heads * config.head_dim
    products = 2 * tokens * sum(p.numel() for p in model.model.layers.parameters())
    attention = 2 * tokens * tokens * width * config.num_hidden_layers
    share = (products + attention) / taken / roof.operations
    report.add(
        f"{shape} prefill, {tokens} tokens",
        f"{tokens / taken:,.0f} tokens/s",
        f"{share:.0%} of the matrix product's peak",
    )


def _planned_ahead(report: Report, size: Size, shape: str, runner: ModelRunner) -> None:
    """The engine's own loop, with the next step launched while this one is computed and without."""
    for rows in (1, min(64, max(size.rows))):
        prompts = [[i * 37 % runner.info.vocab_size] * 8 for i in range(rows)]
        seconds: dict[bool, float] = {}
        for plans_ahead in (False, True, False, True):
            started = time.perf_counter()
            answers(
                runner,
                prompts,
                max_tokens=min(128, size.context // 2),
                max_rows=rows,
                max_step_tokens=runner.info.max_step_tokens,
                plans_ahead=plans_ahead,
            )
            taken = time.perf_counter() - started
            seconds[plans_ahead] = min(taken, seconds.get(plans_ahead, taken))
        ratio = seconds[False] / seconds[True]
        report.add(
            f"{shape} planned ahead, {rows} sequences", f"{ratio:.2f}", "times as fast as without"
        )


def _host_waits(report: Report, size: Size, shape: str, runner: ModelRunner) -> None:
    """Times torch makes the host wait. Waiting for the step's one event is not counted by torch."""
    if size.device.type != "cuda":
        report.add(f"{shape} host waits", "-", "needs a CUDA device", status="SKIPPED")
        return
    for name, sampling in (("greedy", SamplingParams(temperature=0.0)), ("all options", MIXED)):
        plan = decode_plan(
            rows=min(8, max(size.rows)), context=size.context, vocab=runner.info.vocab_size,
            sampling=sampling,
        )  # fmt: skip
        ahead = Plan(tuple(chunk._replace(tokens=(UNKNOWN_TOKEN,)) for chunk in plan.chunks))
        run_step(runner, plan)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                first = runner.draw(runner.launch(plan))
                launched = runner.launch(ahead, first)
                runner.finish(first)
                runner.finish(runner.draw(launched))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [str(w.filename) + f":{w.lineno}" for w in seen if "synchron" in str(w.message)]
        report.expect(
            f"{shape} host waits only at the end, {name}", not waits, "; ".join(waits[:6])
        )


def _profile(report: Report, size: Size, shape: str, runner: ModelRunner) -> None:
    plan = decode_plan(
        rows=min(64, max(size.rows)), context=size.context, vocab=runner.info.vocab_size
    )
    is_cuda = size.device.type == "cuda"
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_cuda else [])
    run_step(runner, plan)
    with profile(activities=kinds) as found:
        for _ in range(3):
            run_step(runner, plan)
    key = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, key))
    for event in events[:10]:
        milliseconds = getattr(event, key) / 3e3
        report.add(
            f"{shape} profile", f"{milliseconds:.3f} ms", f"{event.count // 3} x {event.key[:70]}"
        )


def _same_work(
    report: Report, size: Size, shape: str, runner: ModelRunner, model: PreTrainedModel
) -> None:
    """The same prompts and lengths through our engine and through transformers' generate_batch."""
    rows, vocab = min(64, max(size.rows)), runner.info.vocab_size
    length, new = size.context // 2, min(64, size.context // 4)
    prompts = [[(i * 7919 + j * 37) % vocab for j in range(length)] for i in range(rows)]
    started = time.perf_counter()
    found = answers(
        runner,
        prompts,
        max_tokens=new,
        max_rows=rows,
        max_step_tokens=runner.info.max_step_tokens,
    )
    mine = time.perf_counter() - started
    assert all(len(answer) == new for answer in found)
    note = f"{rows} prompts of {length} tokens, {new} new ones each"
    report.add(f"{shape} engine, prompts included", f"{rows * new / mine:,.0f} tokens/s", note)
    free_memory(runner, size.device)
    theirs = _seconds_of_generate_batch(model, prompts, new)
    report.add(
        f"{shape} transformers' generate_batch",
        f"{rows * new / theirs:,.0f} tokens/s",
        f"ours is {theirs / mine:.2f} times as fast",
    )


def _seconds_of_generate_batch(model: PreTrainedModel, prompts: list[list[int]], new: int) -> float:
    """From the first request to the last token: its own setting up is not counted."""
    model.set_attn_implementation("sdpa")
    config = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=-1)
    try:
        if model.device.type == "cuda":  # compilers and graphs, on the way
            model.generate_batch(prompts[:2], generation_config=config)  # type: ignore[attr-defined]
        outputs = model.generate_batch(  # type: ignore[attr-defined]
            prompts,
            generation_config=config,
            record_timestamps=True,
            **_small_cache(model.device),
        ).values()
    finally:
        model.set_attn_implementation(ATTENTION_NAME)
    count = sum(len(output.generated_tokens) for output in outputs)
    assert count == len(prompts) * new, f"generate_batch gave {count} tokens"
    begin = min(output.created_time for output in outputs)
    seconds: float = max(output.timestamps[-1] for output in outputs) - begin
    return seconds


def _small_cache(device: torch.device) -> dict[str, object]:
    """Keeps generate_batch from taking half the memory of a CPU, and from warming up there."""
    if device.type == "cuda":
        return {}
    config = transformers.ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=256)
    return {"continuous_batching_config": config, "warmup": False}


def _read_bytes(model: PreTrainedModel) -> int:
    """Weights that a decode step reads: all but the input embedding, unless it is the output's."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    is_tied = bool(model.config.tie_word_embeddings)
    return total if is_tied else total - model.get_input_embeddings().weight.nbytes
