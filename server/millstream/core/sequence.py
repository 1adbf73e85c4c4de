"""One request while the engine works on it: its tokens, and the blocks it holds.

Rules: state is lengths. What is left to compute, whether it decodes, how far its prefix is
hashed: all derived from `tokens`, `block_table`, `open_chunks` and the counts. Only the scheduler
mutates it.

A chunk is open from `chunk()` until its step is committed. While it is, the next chunk can be made:
it begins where that one ends, if need be with a token that is still being drawn. So at most two are
open at a time. It may turn out that the second was made for a token that was never drawn, because a
sampler found after all that another one comes. That chunk is void: it stays open, since its step
still runs, but its result will be discarded, and the sequence stands as if it had not been made.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from millstream.core.blocks import BlockHash, BlockPool, extend_hashes
from millstream.core.plan import UNKNOWN_TOKEN, Chunk, StepOutput
from millstream.core.request import FinishReason, Request, TokenEvent, TokenLogprob
from millstream.core.states import SequenceStates, StatePool

_UNKNOWN = (UNKNOWN_TOKEN,)


class Sequence:
    """Tokens known, tokens computed, blocks held.

    tokens: prompt plus generated ids. num_computed: how many of them have their keys and values
    in the cache. num_cached: prompt tokens found in the prefix cache at the first admission (what
    is found again after a preemption saved the client nothing); None before.
    open_chunks: those whose steps are not committed, oldest first. num_void: leading open chunks
    whose result will be discarded.
    num_scored: positions whose prompt log probabilities were delivered.
    states: the slots of its state while it runs, if the model has states.
    num_overtaken: how often a later request was admitted while this one did not fit.
    """

    __slots__ = (
        "arrival",
        "block_table",
        "hashes",
        "num_cached",
        "num_computed",
        "num_overtaken",
        "num_scored",
        "num_void",
        "open_chunks",
        "rank",
        "request",
        "states",
        "tokens",
    )

    def __init__(self, request: Request, arrival: int) -> None:
        self.request = request
        self.arrival = arrival
        self.rank = (request.priority, arrival)  # smaller goes first
        self.tokens = list(request.prompt)
        self.block_table: list[int] = []
        self.hashes: list[BlockHash] = []
        self.open_chunks: deque[Chunk] = deque()
        self.num_void = 0
        self.num_computed = 0
        self.num_cached: int | None = None
        self.num_scored = 0
        self.num_overtaken = 0
        self.states: SequenceStates | None = None

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_launched(self) -> int:
        """Tokens that are computed, or in an open chunk that counts."""
        if not self.open_chunks:
            return self.num_computed
        counting = islice(self.open_chunks, self.num_void, None)
        return self.num_computed + sum(len(chunk.tokens) for chunk in counting)

    @property
    def num_drawing(self) -> int:
        """Tokens that open chunks draw."""
        return sum(chunk.is_last for chunk in islice(self.open_chunks, self.num_void, None))

    @property
    def num_pending(self) -> int:
        """Tokens, known or being drawn, that no step has computed or does; 1 while decoding."""
        if not self.open_chunks:
            return len(self.tokens) - self.num_computed
        return len(self.tokens) + self.num_drawing - self.num_launched

    @property
    def will_end(self) -> bool:
        """Whether a token that is being drawn is certainly the last one."""
        if not (self.open_chunks and self.num_drawing):
            return False
        return self.num_generated + self.num_drawing >= self.request.max_tokens

    def chunk(self, length: int) -> Chunk:
        """The next `length` pending tokens as part of a step."""
        request, tokens, start = self.request, self.tokens, self.num_launched
        end = start + length
        score_from = None if request.prompt_logprobs is None else self.num_scored
        is_last = end >= len(tokens)
        part = tokens[start:end] or _UNKNOWN
        moves = () if self.states is None else self.states.open(start, end)
        chunk = Chunk(request, part, start, self.block_table, tokens, is_last, score_from, moves)
        self.open_chunks.append(chunk)
        return chunk

    def close_chunk(self) -> bool:
        """Closes the oldest open chunk; whether its result counts."""
        self.open_chunks.popleft()
        if self.num_void:
            self.num_void -= 1
            if self.states is not None:
                self.states.close_void()
            return False
        return True

    def make_void(self) -> None:
        """Makes the open chunk void: it computes a token that was not drawn."""
        self.num_void = len(self.open_chunks)
        if self.states is not None:
            self.states.make_void()

    def acquire(self, pool: BlockPool, *, spare: int, state_pool: StatePool | None = None) -> bool:
        """Takes the cached prefix and blocks for all known tokens; False if `pool` has too few.

        spare: blocks that must be left over. state_pool: also takes slots of it.
        """
        size = pool.block_size
        prefix = pool.acquire_prefix(self.reusable_hashes(size))
        if state_pool is not None:
            found = SequenceStates.acquire(
                state_pool, self.hashes[: len(prefix)], prompt=len(self.request.prompt)
            )
            if found is None:
                pool.release(prefix)
                return False
            self.states, depth = found
            pool.release(prefix[depth:])
            prefix = prefix[:depth]
        needed = pool.blocks_for(len(self.tokens)) - len(prefix)
        blocks = pool.allocate(needed) if needed + spare <= pool.num_free else None
        if blocks is None:
            pool.release(prefix)
            self._release_states()
            return False
        self.block_table = prefix + blocks
        self.num_computed = len(prefix) * size
        if self.num_cached is None:
            self.num_cached = self.num_computed
        return True

    def reusable_hashes(self, block_size: int) -> list[BlockHash]:
        """Those of the blocks that need not be computed when it is admitted."""
        # At least one token is computed again: its logits are needed.
        num_reusable = (len(self.tokens) - 1) // block_size
        if self.request.prompt_logprobs is not None:
            num_reusable = min(num_reusable, self.num_scored // block_size)
        self._extend_hashes(num_reusable, block_size)
        return self.hashes[:num_reusable]

    def has_room(self, block_size: int) -> bool:
        """Whether the pending token has a slot."""
        return self.num_launched < len(self.block_table) * block_size

    def grow(self, pool: BlockPool, count: int = 1) -> bool:
        """Makes room for `count` tokens after those launched; False if `pool` has too little."""
        missing = pool.blocks_for(self.num_launched + count) - len(self.block_table)
        blocks = pool.allocate(max(missing, 0))
        self.block_table += blocks or ()
        return blocks is not None

    def shrink(self, pool: BlockPool) -> None:
        """Gives back the blocks that were taken for guesses only."""
        needed = pool.blocks_for(len(self.tokens))
        if needed < len(self.block_table):
            pool.release(self.block_table[needed:])
            self.block_table = self.block_table[:needed]

    def release(self, pool: BlockPool) -> None:
        """Gives all blocks back and forgets what was computed and what is open."""
        pool.release(self.block_table)
        self.block_table = []
        self.num_computed = self.num_void = 0
        self.open_chunks.clear()
        self._release_states()

    def mark_computed(self, count: int, pool: BlockPool) -> None:
        """The next `count` tokens are in the cache now; full blocks can be found by others."""
        size = pool.block_size
        first = self.num_computed // size
        self.num_computed += count
        num_full = self.num_computed // size
        if num_full > first:
            self._extend_hashes(num_full, size)
            for index in range(first, num_full):
                pool.publish(self.block_table[index], self.hashes[index])
        if self.states is not None:
            self.states.close(self.hashes)

    def take(
        self, tokens: tuple[int, ...], output: StepOutput, logprob: TokenLogprob | None
    ) -> TokenEvent:
        """Appends what was drawn, if anything; the event that tells of it, and of its `logprob`."""
        request_id = self.request.id
        reason = None
        if tokens:
            self.tokens += tokens
            reason = self.finish_reason()
        logprobs = () if logprob is None else (logprob,)
        scores = output.prompt_logprobs.get(request_id, ())
        self.num_scored += len(scores)
        return TokenEvent(request_id, tokens, reason, self.num_cached or 0, logprobs, scores)

    def check(self, block_size: int) -> None:
        """Raises AssertionError if the counts of a running sequence do not fit together."""
        capacity = len(self.block_table) * block_size
        num_tokens = len(self.tokens) + self.num_drawing
        assert self.num_computed <= self.num_launched <= capacity, "computed past its blocks"
        assert capacity < num_tokens + block_size, "block held for nothing"
        assert 0 < self.num_pending <= len(self.tokens), "nothing pending"
        assert self.num_void <= len(self.open_chunks), "more chunks void than open"
        assert sum(not chunk.assumed for chunk in self.open_chunks) <= 2, "more chunks than steps"
        assert self.finish_reason() is None, "finished sequence still runs"

    def finish_reason(self) -> FinishReason | None:
        """Why generation ends with the latest token, or None if it goes on."""
        num_generated = len(self.tokens) - len(self.request.prompt)
        if num_generated and self.tokens[-1] in self.request.stop_token_ids:
            return "stop"
        if num_generated >= self.request.max_tokens:
            return "length"
        return None

    def _release_states(self) -> None:
        if self.states is not None:
            self.states.release()
            self.states = None

    def _extend_hashes(self, num_blocks: int, block_size: int) -> None:
        """Makes `hashes` cover the first `num_blocks` full blocks of `tokens`."""
        salt, size = self.request.cache_salt, block_size
        extend_hashes(self.hashes, self.tokens, count=num_blocks, block_size=size, salt=salt)
