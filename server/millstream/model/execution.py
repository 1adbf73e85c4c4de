"""What computes the logits of a step.

A runner is given one execution and asks nothing else. The eager one packs the plan and calls the
model. `cuda.capture.CapturedExecution` replays a captured graph where one holds the step, and
leaves all other steps to the eager one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from millstream.core.plan import Plan
from millstream.model.cpu.threads import Threads
from millstream.model.paging.packer import Packer

FillTokens = Callable[[Tensor], None]
"""Puts the tokens that the host does not know into the token ids [n] int64 of a plan, in place."""


def fill_nothing(token_ids: Tensor) -> None:
    """The FillTokens of a plan whose tokens, token_ids [n] int64, are all known."""


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

    def logits(self, plan: Plan, fill: FillTokens = fill_nothing) -> Tensor:
        """Logits [s + c, vocab]: of the last token of every chunk that has `sampling`, then of
        every position that is `scored`. Raises what torch raises."""
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

    @torch.inference_mode()
    def logits(self, plan: Plan, fill: FillTokens = fill_nothing) -> Tensor:
        """Logits [s + c, vocab], as `Execution.logits()` says."""
        model_input = self.packer.pack(plan)
        fill(model_input.input_ids[0])
        with self.threads.forward():
            return self.forward(
                model_input.input_ids,
                model_input.positions,
                rows=model_input.wanted,
                batch=model_input.batch,
            )
