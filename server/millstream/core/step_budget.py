"""How much of a step is for prompts, so that running answers do not wait too long for a token.

Rules:
1. A step with prompts in it takes as long as the target says, and where decoding alone takes more
   than a third of that, three times as long as decoding alone: prompts get the rest, so at least
   `PROMPT_SHARE` times as long as those who decode. Nobody starves.
2. While nothing decodes there is nobody to wait: prompts get `IDLE_TOKENS` at least.
3. No step has more than `max_tokens`. Without a target, prompts get all that is left of them.
4. Until a step with prompts has been measured, prompts get up to `IDLE_TOKENS`.
5. Where time cuts a prompt, the step's rows become a multiple of `ROWS_AT_ONCE`.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from millstream.core.plan import Chunk, Plan
from millstream.core.sequence import Sequence
from millstream.core.step_costs import Rates, StepCosts, prompt_work, work_of

IDLE_TOKENS = 256
"""Products of so many rows are about as fast for each row as those of more."""

ROWS_AT_ONCE = 16
"""Libraries compile a product for each number of rows they meet, and multiply so many at a time."""

PROMPT_SHARE = 2.0
"""With less, long prompts hold up their own answers for so long that few decode together."""


class PromptRoom:
    """What is left for prompts in a step that is being planned."""

    def __init__(
        self,
        tokens: int,
        *,
        rows: int = 0,
        least: int = 0,
        seconds: float = 0.0,
        rates: Rates | None = None,
    ) -> None:
        """rows: of the step so far. least: tokens that there is room for whatever they take.
        seconds: for the others, which take what `rates` says; without, all `tokens` have room."""
        self._tokens, self._rows, self._least = tokens, rows, least
        self._seconds, self._rates = seconds, rates

    def is_used_up(self) -> bool:
        """Whether no prompt gets anything more."""
        if self._tokens <= 0 or self._rates is None:
            return self._tokens <= 0
        return self._seconds <= 0 and self._least <= 0

    def chunk(self, sequence: Sequence) -> Chunk:
        """The next chunk of a sequence's prompt, as long as there is room for."""
        return sequence.chunk(self.take(sequence.num_pending, start=sequence.num_launched))

    def take(self, wanted: int, *, start: int) -> int:
        """Tokens that a prompt gets of those it wants, from position `start` on; at least one."""
        length = min(wanted, self._tokens)
        if self._rates is not None:
            fitting = self._rates.prompt_tokens_in(self._seconds, start=start)
            in_time = max(fitting, self._least, 1)
            if in_time < length:
                length = self._rounded(in_time)
            self._seconds -= self._rates.seconds(prompt_work(length, start=start))
        self._tokens -= length
        self._rows += length
        self._least -= length
        return length

    def _rounded(self, length: int) -> int:
        """The tokens of a prompt that is cut, and so the last of its step; few stay as they are."""
        if length >= 8 * ROWS_AT_ONCE:
            length -= (self._rows + length) % ROWS_AT_ONCE
        self._tokens = length
        return length


class StepBudget:
    """Makes the room for prompts in each step. Mutated only by the scheduler that owns it."""

    def __init__(self, max_tokens: int, *, target_seconds: float | None = None) -> None:
        """target_seconds: what a step with prompts may take; None: as long as it takes."""
        self.max_tokens, self._target = max_tokens, target_seconds
        self._costs = StepCosts()

    def observe(self, plan: Plan, seconds: float) -> None:
        """Learns from a step how long it took."""
        if self._target is not None:
            self._costs.observe(plan, seconds)

    def room(self, decoding: Seq[Chunk]) -> PromptRoom:
        """What prompts may have beside these."""
        left = self.max_tokens - len(decoding)
        if self._target is None:
            return PromptRoom(left)
        rates = self._costs.rates
        if rates is None:
            return PromptRoom(min(left, IDLE_TOKENS))
        alone = rates.seconds(work_of(decoding))
        if decoding:
            seconds = max(self._target - alone, PROMPT_SHARE * alone)
            rows = sum(len(chunk.tokens) for chunk in decoding)
            return PromptRoom(left, rows=rows, seconds=seconds, rates=rates)
        return PromptRoom(left, least=IDLE_TOKENS, seconds=self._target - alone, rates=rates)
