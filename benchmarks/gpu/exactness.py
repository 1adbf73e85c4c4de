"""Does the engine answer what transformers' generate answers, on this device?"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from benchmarks.gpu.engine import GREEDY, answers, make_runner
from benchmarks.gpu.report import Report
from millstream.core.request import SamplingParams
from millstream.model.attention import ATTENTION_NAME
from millstream.model.cuda.capture import CapturedExecution
from millstream.model.runner import ModelRunner
from millstream.model.speedups import Speedups
from tests.model.architectures import VOCAB, greedy, random_model

FAMILIES = ("llama", "mistral", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "gpt_oss")
FAMILIES += ("deepseek_v2", "phi3", "gpt2")
_MARGIN = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
_TOKENS, _ROWS = 24, 4
_DRAWN = (
    SamplingParams(seed=1),
    SamplingParams(temperature=0.8, top_k=20, top_p=0.9, seed=2),
    SamplingParams(temperature=1.3, min_p=0.02, repetition_penalty=1.2, seed=3),
)


def check_family(
    report: Report, family: str, device: torch.device, dtype: torch.dtype, *, is_fast: bool
) -> None:
    """One tiny model: chunked and batched, under preemption with prefix hits, without graphs.

    dtype float32 wants the same tokens; otherwise, and where rounding decides between two tokens,
    the logits of both have to lie within a margin.
    """
    model = random_model(family).to(device, dtype)
    source = random.Random(1)
    shared = tuple(source.randrange(1, VOCAB) for _ in range(24))
    prompts = [
        shared * (i % 2) + tuple(source.randrange(1, VOCAB) for _ in range(source.randint(3, 40)))
        for i in range(3 if is_fast else 6)
    ]
    expected = [greedy(model, prompt, _TOKENS) for prompt in prompts]
    own = copy.deepcopy(model)
    runner = make_runner(model, max_context=128, max_rows=_ROWS, block_size=8, is_shared=True)
    ways = {"batched": (64, 0), "small chunks": (16, 0), "few blocks, prefix hits": (24, 18)}
    results: dict[str, list[list[int]]] = {}
    for way, (step, blocks) in ways.items():
        results[way] = _run(runner, prompts, step, blocks)
    results["not planned ahead"] = _run(runner, prompts, 64, 0, plans_ahead=False)
    execution = runner.execution
    if isinstance(execution, CapturedExecution):
        report.add(f"{family} graphs", str(execution.graphs.num_replays), "replayed steps")
        if execution.prompts is not None:
            count = str(execution.prompts.num_replays)
            report.add(f"{family} graphs of prompts", count, "replayed steps with prompts")
        runner.execution = execution.eager
        results["without graphs"] = _run(runner, prompts, 64, 0)
    name = str(dtype).removeprefix("torch.")
    if family == FAMILIES[0]:
        _check_draws(report, f"{family} {name}", model, prompts)
    fused = make_runner(own, max_context=128, max_rows=_ROWS, block_size=8)
    for way, (step, blocks) in ways.items():
        results[f"fused layers, {way}"] = _run(fused, prompts, step, blocks)
    for way, found in results.items():
        wrong, close = _differences(model, prompts, found, expected)
        note = f"{close} decided by rounding, of {len(prompts)}; {runner.info.attention_backend}"
        report.expect(f"{family} {name} {way}", not wrong, "; ".join([note, *wrong]))


def _check_draws(
    report: Report, name: str, model: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    """Draws in graphs and outside of them: over the same captured logits the same tokens."""
    found = []
    for speedups in (Speedups(), Speedups(draw_graphs=False)):
        runner = make_runner(
            model, max_context=128, max_rows=_ROWS, block_size=8, is_shared=True, speedups=speedups
        )
        found.append(_run(runner, prompts, 64, 0, sampling=_DRAWN))
    different = sum(mine != theirs for mine, theirs in zip(*found, strict=True))
    report.expect(f"{name} draws in graphs", not different, f"{different} differ of {len(prompts)}")


def _run(
    runner: ModelRunner,
    prompts: list[tuple[int, ...]],
    step: int,
    blocks: int,
    *,
    plans_ahead: bool = True,
    sampling: Sequence[SamplingParams] = (GREEDY,),
) -> list[list[int]]:
    return answers(
        runner,
        prompts,
        max_tokens=_TOKENS,
        max_rows=_ROWS,
        max_step_tokens=step,
        num_blocks=blocks,
        plans_ahead=plans_ahead,
        sampling=sampling,
    )


@torch.inference_mode()
def _differences(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    found: list[list[int]],
    expected: list[list[int]],
) -> tuple[list[str], int]:
    """Answers that are wrong, in words, and how many differ only by rounding."""
    wrong, close = [], 0
    model.set_attn_implementation("eager")
    for number, (prompt, mine, theirs) in enumerate(zip(prompts, found, expected, strict=True)):
        if mine == theirs:
            continue
        place = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None
        )
        if place is None:
            wrong.append(f"answer {number} has {len(mine)} tokens instead of {len(theirs)}")
            continue
        ids = torch.tensor([[*prompt, *theirs[:place]]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
        margin = ((logits[theirs[place]] - logits[mine[place]]).abs() / logits.std()).item()
        if margin <= _MARGIN[model.dtype]:
            close += 1
        else:
            wrong.append(f"answer {number} differs at token {place}, margin {margin:.2g}")
    model.set_attn_implementation(ATTENTION_NAME)
    return wrong, close
