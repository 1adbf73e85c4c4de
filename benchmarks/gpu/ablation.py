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
from millstream.core.plan import Plan
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


def measure_without_each(report: Report, size: Size, shape: str) -> None:
    """Decode steps, a short and a long prompt, and a short one beside decoding rows: milliseconds,
    and how that compares with all."""
    first: dict[str, float] = {}
    for name, speedups in _VARIANTS.items():
        what = f"{shape} ms, {name}"
        report.run(what, partial(_measure, report, size, shape, what, speedups, first))


def _measure(
    report: Report,
    size: Size,
    shape: str,
    what: str,
    speedups: Speedups,
    first: dict[str, float],
) -> None:
    """One line. first: seconds of each kind of step by the variant that was first, to be filled."""
    max_rows = min(_MOST_ROWS, max(size.rows))
    model = make_llama(shape, size.device, size.dtype)
    runner = make_runner(model, max_context=size.max_context, max_rows=max_rows, speedups=speedups)
    parts = []
    for kind, plan in _plans(size, max_rows, runner.info.vocab_size).items():
        taken = seconds_of(partial(run_step, runner, plan), size.device, rounds=size.rounds)
        ratio = taken / first.setdefault(kind, taken)
        parts.append(f"{kind} {taken * 1e3:.2f} ({ratio:.2f})")
    report.add(what, "; ".join(parts))
    free_memory(runner, size.device)


def _plans(size: Size, max_rows: int, vocab: int) -> dict[str, Plan]:
    """The steps that are timed, by what they are called."""
    plans = {
        f"{rows} rows": decode_plan(rows=rows, context=size.context, vocab=vocab)
        for rows in (1, max_rows)
    }
    plans[f"{max_rows} rows that filter"] = decode_plan(
        rows=max_rows, context=size.context, vocab=vocab, sampling=_FILTERED
    )
    for tokens in sorted({min(_PROMPT, size.prompt), size.prompt}):
        plans[f"prompt of {tokens}"] = prefill_plan(tokens=tokens, vocab=vocab)
    tokens, rows = min(_PROMPT, size.context), max_rows - 1
    plans[f"prompt of {tokens} beside {rows} rows"] = mixed_plan(
        rows=rows, context=size.context, tokens=tokens, vocab=vocab
    )
    return plans
