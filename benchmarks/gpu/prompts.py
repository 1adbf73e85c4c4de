"""What a prompt costs those who wait for their next token meanwhile."""

from __future__ import annotations

from benchmarks.gpu.engine import decode_plan, mixed_plan
from benchmarks.gpu.report import Report, seconds_of
from benchmarks.gpu.sizes import Size
from benchmarks.steps import run_step
from millstream.core.plan import Plan
from millstream.model.cuda.capture import CapturedExecution
from millstream.model.runner import ModelRunner

_ROWS, _TOKENS = 63, 128


def measure_prompt_beside(report: Report, size: Size, shape: str, runner: ModelRunner) -> None:
    """A step of decoding rows with a prompt beside them: as served, and without graphs."""
    rows, tokens = min(_ROWS, max(size.rows) - 1), min(_TOKENS, size.context)
    vocab, execution = runner.info.vocab_size, runner.execution

    def milliseconds(plan: Plan) -> float:
        return 1e3 * seconds_of(lambda: run_step(runner, plan), size.device, rounds=size.rounds)

    alone = milliseconds(decode_plan(rows=rows, context=size.context, vocab=vocab))
    mixed = mixed_plan(rows=rows, context=size.context, tokens=tokens, vocab=vocab)
    both = milliseconds(mixed)
    note = f"{both - alone:.2f} ms more than without the prompt"
    if isinstance(execution, CapturedExecution):
        runner.execution = execution.eager
        note += f", {milliseconds(mixed):.2f} ms a step without graphs"
        runner.execution = execution
    report.add(f"{shape} prompt of {tokens} beside {rows} rows", f"{both:.2f} ms", note)
