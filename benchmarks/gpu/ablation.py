"""What each optimisation is worth: the same steps with all of them, and with one left out."""

from __future__ import annotations

from functools import partial

from benchmarks.gpu.engine import (
    decode_plan,
    free_memory,
    make_llama,
    make_runner,
    mixed_plan,
    prefill_plan,
)
from benchmarks.gpu.report import Report, seconds_of
from benchmarks.gpu.sizes import Size
from benchmarks.steps import run_step
from millstream.core.request import SamplingParams
from millstream.model.speedups import Speedups

_VARIANTS = {
    "all": Speedups(),
    "layers one by one": Speedups(stack=False),
    "nothing fused": Speedups(decoder=False),
    "no graphs": Speedups(graphs=False),
    "draws outside graphs": Speedups(draw_graphs=False),
    "no graphs of prompts": Speedups(prompt_graphs=False),
    "prompts over blocks": Speedups(dense_prompts=False),
    "all products by torch": Speedups(few_row_products=False),
    "kernels in turn": Speedups(overlapping_launches=False),
}
_MOST_ROWS, _PROMPT = 64, 128
_FILTERED = SamplingParams(temperature=0.8, top_k=50, top_p=0.95, seed=1)


def measure_without_each(report: Report, size: Size, shape: str, *, max_context: int) -> None:
    """Decode steps, a short and a long prompt, and a short one beside decoding rows: milliseconds,
    and how that compares with all."""
    first: dict[str, float] = {}
    most_rows = min(_MOST_ROWS, max(size.rows))
    for name, speedups in _VARIANTS.items():
        model = make_llama(shape, size.device, size.dtype)
        runner = make_runner(model, max_context=max_context, max_rows=most_rows, speedups=speedups)
        vocab = runner.info.vocab_size
        plans = {
            f"{rows} rows": decode_plan(rows=rows, context=size.context, vocab=vocab)
            for rows in (1, most_rows)
        }
        plans[f"{most_rows} rows that filter"] = decode_plan(
            rows=most_rows, context=size.context, vocab=vocab, sampling=_FILTERED
        )
        for tokens in sorted({min(_PROMPT, size.prompt), min(size.prompt, max_context)}):
            plans[f"prompt of {tokens}"] = prefill_plan(tokens=tokens, vocab=vocab)
        tokens, rows = min(_PROMPT, size.context), most_rows - 1
        plans[f"prompt of {tokens} beside {rows} rows"] = mixed_plan(
            rows=rows, context=size.context, tokens=tokens, vocab=vocab
        )
        parts = []
        for what, plan in plans.items():
            taken = seconds_of(partial(run_step, runner, plan), size.device, rounds=size.rounds)
            ratio = taken / first.setdefault(what, taken)
            parts.append(f"{what} {taken * 1e3:.2f} ({ratio:.2f})")
        report.add(f"{shape} ms, {name}", "; ".join(parts))
        free_memory(runner, size.device)
        del runner, model
