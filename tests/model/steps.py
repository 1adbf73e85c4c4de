"""Whole steps of a runner, for tests that have no loop."""

from __future__ import annotations

from millstream.core.plan import Plan, StepOutput
from millstream.model.runner import ModelRunner


def run_step(runner: ModelRunner, plan: Plan) -> StepOutput:
    """Computes the plan and waits for its tokens. Raises what torch raises."""
    return runner.finish(runner.draw(runner.launch(plan)))
