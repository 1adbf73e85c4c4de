"""One request while the engine works on it: its tokens, and the blocks it holds.

Rules: state is lengths. What is left to compute, whether it decodes, how far its prefix is
hashed: all derived from `tokens`, `num_computed` and `block_table`. Only the scheduler mutates it.
"""

from __future__ import annotations

from millstream.core.blocks import BlockHash, BlockPool, chain_hash, root_hash
from millstream.core.plan import Chunk
from millstream.core.request import FinishReason, Request


class Sequence:
    """Tokens known, tokens computed, blocks held.

    tokens: prompt plus generated ids. num_computed: how many of them have their keys and values
    in the cache. num_cached: prompt tokens found in the prefix cache at the first admission (what
    is found again after a preemption saved the client nothing); None before.
    num_scored: positions whose prompt log probabilities were delivered.
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
        "rank",
        "request",
        "tokens",
    )

    def __init__(self, request: Request, arrival: int) -> None:
        self.request = request
        self.arrival = arrival
        self.rank = (request.priority, arrival)  # smaller goes first
        self.tokens = list(request.prompt)
        self.block_table: list[int] = []
        self.hashes: list[BlockHash] = []
        self.num_computed = 0
        self.num_cached: int | None = None
        self.num_scored = 0
        self.num_overtaken = 0

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_pending(self) -> int:
        """Known tokens that are not computed yet; 1 while decoding."""
        return len(self.tokens) - self.num_computed

    def chunk(self, length: int) -> Chunk:
        """The next `length` pending tokens as part of a step."""
        request, tokens, start = self.request, self.tokens, self.num_computed
        end = start + length
        score_from = None if request.prompt_logprobs is None else self.num_scored
        is_last = end == len(tokens)
        return Chunk(
            request, tokens[start:end], start, self.block_table, tokens, is_last, score_from
        )

    def acquire(self, pool: BlockPool, *, spare: int) -> bool:
        """Takes the cached prefix and blocks for all known tokens; False if `pool` has too few.

        spare: blocks that must be left over.
        """
        size = pool.block_size
        # At least one token is computed again: its logits are needed.
        num_reusable = (len(self.tokens) - 1) // size
        if self.request.prompt_logprobs is not None:
            num_reusable = min(num_reusable, self.num_scored // size)
        self._extend_hashes(num_reusable, size)
        prefix = pool.acquire_prefix(self.hashes[:num_reusable])
        needed = pool.blocks_for(len(self.tokens)) - len(prefix)
        blocks = pool.allocate(needed) if needed + spare <= pool.num_free else None
        if blocks is None:
            pool.release(prefix)
            return False
        self.block_table = prefix + blocks
        self.num_computed = len(prefix) * size
        if self.num_cached is None:
            self.num_cached = self.num_computed
        return True

    def grow(self, pool: BlockPool) -> bool:
        """Makes room for the pending token; False if `pool` is empty."""
        if len(self.tokens) <= len(self.block_table) * pool.block_size:
            return True
        blocks = pool.allocate(1)
        if blocks is None:
            return False
        self.block_table += blocks
        return True

    def release(self, pool: BlockPool) -> None:
        """Gives all blocks back."""
        pool.release(self.block_table)
        self.block_table = []
        self.num_computed = 0

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

    def finish_reason(self) -> FinishReason | None:
        """Why generation ends with the latest token, or None if it goes on."""
        num_generated = len(self.tokens) - len(self.request.prompt)
        if num_generated and self.tokens[-1] in self.request.stop_token_ids:
            return "stop"
        if num_generated >= self.request.max_tokens:
            return "length"
        return None

    def _extend_hashes(self, num_blocks: int, block_size: int) -> None:
        """Makes `hashes` cover the first `num_blocks` full blocks of `tokens`."""
        hashes = self.hashes
        while len(hashes) < num_blocks:
            parent = hashes[-1] if hashes else root_hash(self.request.cache_salt)
            start = len(hashes) * block_size
            hashes.append(chain_hash(parent, self.tokens[start : start + block_size]))
