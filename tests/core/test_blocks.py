"""The block pool, driven by random operations against a plain model of what it promises."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millstream.core.blocks import BlockPool, chain_hash, root_hash

NUM_BLOCKS = 6


class PoolMachine(RuleBasedStateMachine):
    """Holders take, publish and release blocks; `content` is what each block was filled with."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(num_blocks=NUM_BLOCKS, block_size=2)
        self.holders: list[list[int]] = []
        self.content: dict[int, bytes] = {}

    @rule(count=st.integers(0, NUM_BLOCKS + 1))
    def allocate(self, count: int) -> None:
        free = self.pool.num_free
        blocks = self.pool.allocate(count)
        if count > free:
            assert blocks is None
            return
        assert blocks is not None
        assert len(set(blocks)) == count
        held = {block for holder in self.holders for block in holder}
        assert not held & set(blocks), "handed out a block that is in use"
        for block in blocks:
            self.content.pop(block, None)
        self.holders.append(blocks)

    @rule(data=st.data(), name=st.integers(0, 3))
    def publish(self, data: st.DataObject, name: int) -> None:
        blocks = [block for holder in self.holders for block in holder]
        unfilled = [block for block in blocks if block not in self.content]
        if unfilled:
            block = data.draw(st.sampled_from(unfilled))
            self.content[block] = bytes([name])
            self.pool.publish(block, bytes([name]))

    @rule(names=st.lists(st.integers(0, 3), max_size=4))
    def acquire(self, names: list[int]) -> None:
        blocks = self.pool.acquire_prefix(bytes([name]) for name in names)
        for block, name in zip(blocks, names, strict=False):
            assert self.content[block] == bytes([name]), "found a block of other content"
        self.holders.append(blocks)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.holders:
            index = data.draw(st.integers(0, len(self.holders) - 1))
            self.pool.release(self.holders.pop(index))

    @invariant()
    def holds(self) -> None:
        self.pool.check(self.holders)
        held = {block for holder in self.holders for block in holder}
        assert self.pool.num_used == len(held)


PoolMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


def test_cached_blocks_survive_until_space_is_needed() -> None:
    pool = BlockPool(num_blocks=3, block_size=2)
    blocks = pool.allocate(2)
    assert blocks is not None
    pool.publish(blocks[0], b"first")
    pool.publish(blocks[1], b"second")
    pool.release(blocks)
    assert pool.allocate(1) == [2], "the block without content goes first"
    assert pool.acquire_prefix([b"first", b"second"]) == blocks


def test_least_recently_used_prefix_is_forgotten_first_and_from_its_end() -> None:
    pool = BlockPool(num_blocks=4, block_size=2)
    old, new = pool.allocate(2), pool.allocate(2)
    assert old is not None
    assert new is not None
    for name, block in zip((b"o1", b"o2", b"n1", b"n2"), old + new, strict=True):
        pool.publish(block, name)
    pool.release(old)
    pool.release(new)
    assert pool.allocate(1) == [old[1]]
    assert pool.acquire_prefix([b"o1", b"o2"]) == [old[0]]
    assert pool.acquire_prefix([b"n1", b"n2"]) == new


def test_hash_depends_on_everything_before_and_on_salt() -> None:
    one = chain_hash(root_hash(""), [1, 2])
    assert chain_hash(root_hash(""), [1, 2]) == one
    assert chain_hash(root_hash("salt"), [1, 2]) != one
    assert chain_hash(one, [1, 2]) != one
    assert chain_hash(root_hash(""), [2, 1]) != one
