"""What computes the logits of a step, and on a device the tokens of most rows.

A runner is given one execution and asks nothing else. The eager one packs the plan and calls the
model. `cuda.capture.CapturedExecution` replays a captured graph where one holds the step, and
leaves all other steps to the eager one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cpu.threads import Threads
from millstream.model.paging.layout import StepBefore, fill_unknown_tokens
from millstream.model.paging.packer import Packer
from millstream.model.sampling.ahead import DrawnAhead


class Computed(NamedTuple):
    """What an execution makes of a step.

    logits: [s + c, vocab], of the last token of every chunk that has `sampling`, then of every
    position that is `scored`; where all rows are drawn ahead and nobody has filters or wants log
    probabilities, the next step may write over them. ahead: the rows that are drawn already, None
    if none is.
    """

    logits: Tensor
    ahead: DrawnAhead | None = None


class Execution(Protocol):
    """Computes steps over one cache, one way."""

    @property
    def plans_ahead(self) -> bool:
        """Whether the device computes a step while the host does something else."""
        ...

    @property
    def threads(self) -> Threads:
        """The threads that compute on a CPU, what comes after the logits included."""
        ...

    @property
    def forward(self) -> Callable[..., Tensor]:
        """The model, called as `Forward` is."""
        ...

    def compute(self, plan: Plan, before: StepBefore | None = None) -> Computed:
        """Queues a step. before: draws what the plan lacks, if it lacks something. Raises what
        torch raises."""
        ...


class EagerExecution:
    """Calls the model for every step."""

    def __init__(
        self,
        packer: Packer,
        forward: Callable[..., Tensor],
        threads: Threads,
        *,
        plans_ahead: bool = False,
    ) -> None:
        """plans_ahead: whether packer and model only queue work on their device."""
        self.packer = packer
        self.forward = forward
        self.threads = threads
        self.plans_ahead = plans_ahead

    def compute(self, plan: Plan, before: StepBefore | None = None) -> Computed:
        """Computes the logits of a step, as `Execution.compute()` says; nothing is drawn ahead."""
        return Computed(self.logits(plan, before))

    @torch.inference_mode()
    def logits(self, plan: Plan, before: StepBefore | None = None) -> Tensor:
        """Logits [s + c, vocab], as Computed describes them."""
        model_input = self.packer.pack(plan)
        if before is not None:
            fill_unknown_tokens(model_input.input_ids[0], plan, before)
        with self.threads.forward():
            return self.forward(
                model_input.input_ids,
                model_input.positions,
                rows=model_input.wanted,
                batch=model_input.batch,
            )
