"""Whether an engine guesses ahead of its answers, and what its log says of it."""

from __future__ import annotations

import logging

from millstream.core.guesses import MOST_GUESSES, Guesses
from millstream.core.status import Statistics
from millstream.runtime.runner_protocol import Runner

log = logging.getLogger(__name__)


def guesses_for(runner: Runner, most: int | None) -> Guesses | None:
    """What guesses ahead; None where that is not possible, which changes no answer.

    most: for an answer in a step, as it is set; None if it is not.
    """
    if runner.plans_ahead:
        reason = "this device begins a step before the tokens of the last one are known"
    elif runner.info.num_states:
        reason = "the layers of this model keep states, which cannot be taken back"
    else:
        return Guesses(MOST_GUESSES if most is None else most)
    if most:
        log.warning("--speculate: nothing is guessed ahead, since %s", reason)
    return None


def log_guesses(last: Statistics) -> None:
    """Says what came of the guesses of an engine that ends."""
    if last.num_draft_tokens:
        log.info(
            "%d tokens were guessed ahead of answers, %d of them right (%.0f %%)",
            last.num_draft_tokens,
            last.num_accepted_tokens,
            100 * last.num_accepted_tokens / last.num_draft_tokens,
        )
