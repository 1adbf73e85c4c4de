"""One request while the engine works on it.

Rules: state is lengths. What is left to compute, whether it decodes, how far its prefix is
hashed: all derived from `tokens`, `num_computed` and `block_table`. Only the scheduler mutates it.
"""

from __future__ import annotations

from millstream.core.blocks import BlockHash, chain_hash, root_hash
from millstream.core.request import FinishReason, Request


class Sequence:
    """Tokens known, tokens computed, blocks held.

    tokens: prompt plus generated ids. num_computed: how many of them have their keys and values
    in the cache. num_cached: prompt tokens found in the prefix cache at the first admission (what
    is found again after a preemption saved the client nothing); None before.
    num_overtaken: how often a later request was admitted while this one did not fit.
    """

    __slots__ = (
        "arrival",
        "block_table",
        "hashes",
        "num_cached",
        "num_computed",
        "num_overtaken",
        "request",
        "tokens",
    )

    def __init__(self, request: Request, arrival: int) -> None:
        self.request = request
        self.arrival = arrival
        self.tokens = list(request.prompt)
        self.block_table: list[int] = []
        self.hashes: list[BlockHash] = []
        self.num_computed = 0
        self.num_cached: int | None = None
        self.num_overtaken = 0

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller goes first: priority, then order of arrival."""
        return (self.request.priority, self.arrival)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_pending(self) -> int:
        """Known tokens that are not computed yet; 1 while decoding."""
        return len(self.tokens) - self.num_computed

    def extend_hashes(self, *, num_blocks: int, block_size: int) -> None:
        """Makes `hashes` cover the first `num_blocks` full blocks of `tokens`."""
        hashes = self.hashes
        while len(hashes) < num_blocks:
            parent = hashes[-1] if hashes else root_hash(self.request.cache_salt)
            start = len(hashes) * block_size
            hashes.append(chain_hash(parent, self.tokens[start : start + block_size]))

    def finish_reason(self) -> FinishReason | None:
        """Why generation ends with the latest token, or None if it goes on."""
        if self.num_generated and self.tokens[-1] in self.request.stop_token_ids:
            return "stop"
        if self.num_generated >= self.request.max_tokens:
            return "length"
        return None
