"""Blocks of KV cache: who holds them, and which of them hold a known prefix.

Rules:
1. A block is free when nobody references it. A free block may still hold a cached prefix; it is
   handed out again only after every free block that is older (least recently used first).
2. A prefix is known by the chained 128-bit hash of its full blocks, so equal hashes mean equal
   tokens from the first one on (and equal salt).
3. `check()` states all of this; tests call it after every step.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

BlockHash = bytes


def root_hash(salt: str) -> BlockHash:
    """Hash that the first block of a sequence is chained to."""
    return blake2b(salt.encode(), digest_size=16).digest()


def chain_hash(parent: BlockHash, tokens: Sequence[int]) -> BlockHash:
    """Hash of a full block given the hash of everything before it (BLAKE2b, 16 bytes)."""
    return blake2b(parent + array("Q", tokens).tobytes(), digest_size=16).digest()


def extend_hashes(
    hashes: list[BlockHash], tokens: Sequence[int], *, count: int, block_size: int, salt: str
) -> None:
    """Makes `hashes` those of the first `count` full blocks of `tokens`, of which it has some."""
    for number in range(len(hashes), count):
        parent = hashes[-1] if hashes else root_hash(salt)
        start = number * block_size
        hashes.append(chain_hash(parent, tokens[start : start + block_size]))


class BlockPool:
    """All blocks of the KV cache. Mutated only by the scheduler that owns it.

    num_blocks: how many there are; block_size: tokens of each.
    """

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._references = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._hash_of: dict[int, BlockHash] = {}
        self._block_of: dict[BlockHash, int] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    @property
    def num_cached(self) -> int:
        """Blocks whose content is known by hash, used or free."""
        return len(self._hash_of)

    def is_known(self, block_hash: BlockHash) -> bool:
        """Whether a block holds the prefix with this hash."""
        return block_hash in self._block_of

    def block_of(self, block_hash: BlockHash) -> int | None:
        """The block that holds the prefix with this hash."""
        return self._block_of.get(block_hash)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def allocate(self, count: int) -> list[int] | None:
        """Takes `count` blocks, forgetting the least recently used prefixes; None if too few."""
        if count > len(self._free):
            return None
        blocks = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
            self._forget(block)
        return blocks

    def acquire_prefix(self, hashes: Iterable[BlockHash]) -> list[int]:
        """Takes a reference on each block of the longest cached prefix of `hashes`."""
        blocks: list[int] = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1
            blocks.append(block)
        return blocks

    def publish(self, block: int, block_hash: BlockHash) -> None:
        """Makes a full, computed block findable. The first block with a hash keeps it."""
        if block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def release(self, blocks: Sequence[int]) -> None:
        """Drops one reference on each block; the end of a sequence is evicted before its start."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free[block] = None
                if block not in self._hash_of:
                    self._free.move_to_end(block, last=False)

    def forget_free(self, blocks: Iterable[int]) -> list[int]:
        """Makes those of `blocks` that nobody holds unknown as a prefix, and returns them."""
        free = [block for block in blocks if self._references[block] == 0]
        for block in free:
            self._forget(block)
            self._free.move_to_end(block, last=False)
        return free

    def _forget(self, block: int) -> None:
        block_hash = self._hash_of.pop(block, None)
        if block_hash is not None:
            del self._block_of[block_hash]

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Raises AssertionError unless references equal the given block tables exactly."""
        held = Counter(block for table in tables for block in table)
        for block in range(self.num_blocks):
            references = self._references[block]
            assert references == held[block], f"block {block}: {references} != {held[block]}"
            assert (references == 0) == (block in self._free), f"block {block} free list"
        assert {v: k for k, v in self._hash_of.items()} == self._block_of, "hash maps differ"
