"""Which tokens the next step computes.

Rules:
1. Decode first: every running sequence with one pending token gets it computed in every step.
   Guesses at what follows them come next, where they pay. Prompt chunks fill the rest of the
   step's budget (step_budget.py), whose tokens are more than `max_running`, in order of rank
   (priority, arrival).
2. Blocks for everything known of a sequence are taken when the waiting line admits it; a decode
   step takes at most one more. When none is left, the running sequence of the worst rank is
   preempted: its blocks go back and it waits, at its old rank, to be computed again (the prefix
   cache helps).
3. No livelock: the sequence of the best rank is never a victim, and alone it always fits, because
   `fits()` is asked at the door.
4. A plan is open until `commit()` or `fail_step()`. While one is, the next can be made; it assumes
   that every sequence goes on. Nobody is preempted for it. Plans end in the order they were made.
5. No torch, no clock, no threads. `add()` and `cancel()` come at any time. `check()` holds between
   any two calls.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from millstream.core.archive import BlockArchive
from millstream.core.archived_prefixes import ArchivedPrefixes
from millstream.core.blocks import BlockPool
from millstream.core.guesses import Guesses
from millstream.core.held_blocks import HeldBlocks
from millstream.core.plan import INVALID_TOKEN, REJECTED_TOKEN, Chunk, Plan, StepOutput
from millstream.core.request import FailureCode, FailureEvent, Request, TokenEvent
from millstream.core.running_set import RunningSet
from millstream.core.sequence import Sequence
from millstream.core.states import StatePool
from millstream.core.status import Statistics
from millstream.core.step_budget import StepBudget
from millstream.core.waiting_line import WaitingLine


class Scheduler:
    """Owns all sequences and the pools. Mutated only by the engine loop."""

    def __init__(
        self,
        *,
        pool: BlockPool,
        max_running: int,
        max_step_tokens: int,
        target_seconds: float | None = None,
        states: StatePool | None = None,
        archive: BlockArchive | None = None,
        guesses: Guesses | None = None,
    ) -> None:
        """target_seconds: for a step with prompts, as `StepBudget` takes it. states: for a model
        that has them. archive: where blocks are kept outside the pool. guesses: by default none;
        only where no plan is made while another is open, and for a model without states, which
        could not be taken back."""
        if states is not None and guesses is not None:
            raise ValueError("no guesses for a model with states")
        if max_step_tokens < max_running:
            raise ValueError("max_step_tokens must be at least max_running: decode comes first")
        self.pool, self.states = pool, states
        self.max_running = max_running
        self._budget = StepBudget(max_step_tokens, target_seconds=target_seconds)
        self._sequences: dict[int, Sequence] = {}
        self._held = HeldBlocks(pool, states)
        self._archived = ArchivedPrefixes(pool, archive)
        self._waiting = WaitingLine(pool, states, self._archived)
        self._running = RunningSet(pool, self._waiting)
        self._guesses = guesses or Guesses()
        self._num_open = 0
        self._num_arrived = 0

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def fits(self, request: Request) -> bool:
        """Whether the pool could hold the request at its longest, with nothing else running."""
        # The last generated token is never computed, so it needs no slot.
        longest = len(request.prompt) + request.max_tokens - 1
        return self.pool.blocks_for(longest) <= self.pool.num_blocks

    def add(self, request: Request) -> None:
        """Queues a request. The caller has asked `fits()`."""
        assert request.id not in self._sequences, f"request id {request.id} used twice"
        sequence = Sequence(request, self._num_arrived)
        self._num_arrived += 1
        self._sequences[request.id] = sequence
        self._waiting.add(sequence)

    def cancel(self, request_id: int) -> bool:
        """Forgets a request, and its blocks once no open plan writes to them; False if unknown."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return False
        if sequence.num_generated:
            self._archived.keep(sequence)
        self._remove(sequence)
        return True

    def plan(self) -> Plan | None:
        """The next step, or None when there is nothing to compute (yet)."""
        if self._num_open and not self._running.can_go_ahead():
            return None
        self._archived.restore()
        before = self._running.num_preemptions
        chunks = list(self._running.decode_chunks().values())
        chunks += self._guesses.chunks(
            self._running,
            pool=self.pool,
            may_grow=not self._waiting,  # whoever waits needs the blocks
            room=self._budget.max_tokens - len(chunks),
        )
        self._add_prompt_chunks(chunks, may_admit=self._running.num_preemptions == before)
        self._num_open += bool(chunks)
        return Plan(tuple(chunks)) if chunks else None

    def commit(
        self, plan: Plan, output: StepOutput, *, seconds: float | None = None
    ) -> list[TokenEvent]:
        """Takes over the results of the oldest open plan. seconds: what it took, if known."""
        assert len(output.tokens) == plan.num_sampled, "one sampled token per sampling chunk"
        self._num_open -= 1
        if seconds is not None:
            self._budget.observe(plan, seconds)
        events: list[TokenEvent] = []
        self._guesses.observe(plan, output.tokens, seconds)
        sampled = enumerate(output.tokens)
        for chunk in plan.chunks:
            number, token = next(sampled) if chunk.is_last else (-1, None)
            tokens = () if token is None else (token,)
            sequence = self._sequences.get(chunk.request.id)
            if sequence is None:
                self._held.close(chunk.request.id, is_suspect=INVALID_TOKEN in tokens)
                continue
            if not sequence.close_chunk():
                continue
            if token == REJECTED_TOKEN:
                sequence.shrink(self.pool)
                continue
            sequence.mark_computed(len(chunk.tokens), self.pool)
            if not tokens and not chunk.scored:
                continue
            event = sequence.take(tokens, output, output.logprobs.get(number))
            events.append(event)
            if event.finish_reason is not None:
                self._archived.keep(sequence)
                self._remove(sequence)
            elif self._num_open and chunk.request.id in output.late and sequence.open_chunks:
                sequence.make_void()
        return events

    def fail(self, request_ids: Seq[int], *, code: FailureCode, message: str) -> list[FailureEvent]:
        """Ends the given requests with a failure; ids that are not here are skipped."""
        ids = dict.fromkeys(request_ids)
        known = [self._sequences[each] for each in ids if each in self._sequences]
        for sequence in known:
            self._remove(sequence)
        return [FailureEvent(sequence.request.id, code, message) for sequence in known]

    def fail_queued(self, ids: Seq[int], *, code: FailureCode, message: str) -> list[FailureEvent]:
        """Ends those of the given requests that never got to run, as `fail()` does."""
        known = (self._sequences[request_id] for request_id in ids if request_id in self._sequences)
        never_ran = [sequence.request.id for sequence in known if sequence.num_cached is None]
        return self.fail(never_ran, code=code, message=message)

    def fail_step(self, plan: Plan, *, code: FailureCode, message: str) -> list[FailureEvent]:
        """Ends an open plan that has no output, and its requests with a failure."""
        self._num_open -= 1
        request_ids = [chunk.request_id for chunk in plan.chunks]
        failures = self.fail(request_ids, code=code, message=message)
        for request_id in request_ids:
            self._held.close(request_id, is_suspect=True)
        return failures

    def is_wanted(self, request_id: int) -> bool:
        """Whether anybody waits for what the oldest open plan computes for the request."""
        sequence = self._sequences.get(request_id)
        return sequence is not None and not sequence.num_void

    def take_unclean(self) -> list[int]:
        """Free blocks that may hold NaN, each given once, to be cleared before the next step."""
        return self._held.take_unclean()

    def save_blocks(self) -> bool:
        """Lets the archive have some of what it is to keep; whether it has more to do."""
        return self._archived.save()

    def close(self, *, seconds: float) -> None:
        """Ends the archive; what is left to be written may take so long."""
        self._archived.close(seconds=seconds)

    def statistics(self) -> Statistics:
        """How the scheduler stands now."""
        states = self.states.slots if self.states else None
        return Statistics(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_blocks=self.pool.num_blocks,
            num_blocks_used=self.pool.num_used,
            num_blocks_cached=self.pool.num_cached,
            num_preemptions=self._running.num_preemptions,
            num_states=states.num_blocks if states else 0,
            num_states_used=states.num_used if states else 0,
            num_states_cached=states.num_cached if states else 0,
            num_drafts=self._guesses.num_drafts,
            num_draft_tokens=self._guesses.num_draft_tokens,
            num_accepted_tokens=self._guesses.num_accepted_tokens,
            archive=self._archived.statistics(),
        )

    def check(self) -> None:
        """Raises AssertionError if any invariant of the scheduler or the pool is broken."""
        self._held.check(self._sequences.values())
        assert len(self._running) <= self.max_running, "too many running"
        self._running.check()
        self._waiting.check()
        assert {s.request.id for s in (*self._running, *self._waiting)} == set(self._sequences)
        for sequence in self._running:
            num_open = sum(not chunk.assumed for chunk in sequence.open_chunks)
            assert num_open <= self._num_open, "in a plan that is not open"

    def _add_prompt_chunks(self, chunks: list[Chunk], *, may_admit: bool) -> None:
        """Fills the step with prompts, those that run first, then those that can be admitted.

        may_admit: False in a step that preempted, since the victim would come straight back.
        """
        prompts = [sequence for sequence in self._running if sequence.num_pending > 1]
        may_admit = may_admit and bool(self._waiting)
        if not (prompts or may_admit):
            return  # most steps: what they cost need not be known
        room = self._budget.room(chunks)
        for sequence in prompts:
            if not room.is_used_up():
                chunks.append(room.chunk(sequence))
        if room.is_used_up() or not may_admit:
            return
        num_running, limit, known = len(self._running), self.max_running, self._sequences
        for sequence in self._waiting.admit(num_running=num_running, limit=limit, known=known):
            self._running.add(sequence)
            chunks.append(room.chunk(sequence))
            if room.is_used_up():
                break

    def _remove(self, sequence: Sequence) -> None:
        (self._running if sequence in self._running else self._waiting).remove(sequence)
        del self._sequences[sequence.request.id]
        self._archived.forget(sequence.request.id)
        self._guesses.forget(sequence.request.id)
        self._held.hold(sequence)
