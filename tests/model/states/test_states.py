"""States in slots behave as transformers' own caches do, however the rows of a step are cut."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.cache_utils import LinearAttentionLayer

from millstream.core.plan import Chunk, StateMove
from millstream.core.request import Request, SamplingParams
from millstream.model.states.model_cache import ModelCache, StatelessCache
from millstream.model.states.splitting import Carrier, Splitting, TokenDims
from millstream.model.states.state_cache import StateCache, StateKey, StateShape
from millstream.model.states.state_step import NO_STATE, HostStates, StateStep, Stretch

CHANNELS, KEPT = 3, 4
CONV, RECURRENT = StateKey(0, "conv", 0), StateKey(0, "recurrent", 0)
SHAPES = {
    CONV: StateShape((CHANNELS, KEPT), torch.float32),
    RECURRENT: StateShape((2,), torch.float32),
}
HIDDEN = TokenDims({0: 1}, [1])


def new_cache(num_slots: int = 8) -> StateCache:
    cache = StateCache(SHAPES, num_slots=num_slots, device=torch.device("cpu"))
    for tensor in cache.tensors.values():
        tensor.fill_(torch.nan)  # what nobody wrote must not matter
    return cache


def step_of(cache: StateCache, moves: list[tuple[StateMove, ...]]) -> StateStep:
    """The step of chunks with these moves."""
    request = Request(id=1, prompt=(0,), sampling=SamplingParams(), max_tokens=1)
    chunks = [
        Chunk(request, (0,) * sum(move.length for move in states), 0, [], [], True, states=states)
        for states in moves
    ]
    return HostStates.of_chunks(chunks).put(torch.from_numpy, cache)


class Mixer(nn.Module):
    """Carries the sum and the last inputs of a sequence, as layers of transformers' models do."""

    def __init__(self, *, forgets: bool = False) -> None:
        super().__init__()
        self.forgets = forgets

    def forward(self, x: Tensor, cache: StatelessCache, mask: None = None) -> Tensor:
        """x [b, T, channels] -> [b, T, channels]: a causal sum of four inputs, and of all."""
        length = x.shape[1]
        before = cache.get_recurrent_state(0, state_idx=0)
        if self.forgets and length > 1:
            before = None
        conv_state = cache.get_conv_state(0, state_idx=0)
        if conv_state is not None and length == 1:  # in place, as the usual code does
            seen = torch.cat([conv_state, x.transpose(1, 2)], dim=-1)
            conv_state.copy_(seen[..., -KEPT:])
        else:
            seen = cache.update_conv_state(x.transpose(1, 2), 0, conv_kernel_size=KEPT)
        windows = nn.functional.pad(seen, (KEPT, 0)).unfold(-1, KEPT, 1).sum(-1)[..., -length:]
        start = 0.0 if before is None else before[:, :1].unsqueeze(1)
        total = x.sum(-1, keepdim=True).cumsum(1) + start
        cache.update_recurrent_state(total[:, -1].expand(-1, 2), 0)
        return windows.transpose(1, 2) + total


def test_rows_that_go_on_come_first_and_the_rest_are_stretches() -> None:
    moves = [
        (StateMove(1, 3, 3),),
        (StateMove(1, 5, 2),),
        (StateMove(1, None, 1),),
        (StateMove(4, None, 0), StateMove(2, 0, 4)),
    ]
    step = step_of(new_cache(), moves)
    assert step.num_decodes == 2
    assert step.stretches == (
        Stretch(2, 1, NO_STATE, 1),
        Stretch(3, 4, NO_STATE, 0),
        Stretch(7, 2, 0, 4),
    )
    assert step.num_rows == 9
    assert step.slots.tolist() == [[3, 5, -1, -1, 0], [3, 2, 1, 0, 4]]
    assert step.firsts.tolist() == [0, 1, 2, 3, 7, 9]


@pytest.mark.parametrize("seed", range(30))
def test_states_are_those_of_transformers_own_cache(seed: int) -> None:
    """Inputs of random lengths: what a convolution gets and keeps is equal after each of them."""
    source, slots = random.Random(seed), new_cache()
    theirs: Any = LinearAttentionLayer()
    cache = ModelCache()
    slot = NO_STATE
    for number in range(6):
        length = source.choice([1, 1, 2, 3, 4, 7])
        inputs = torch.randn(1, CHANNELS, length)
        target = source.randrange(8)
        cache.step = StateStep(slots, 0, (), torch.empty(2, 0), torch.empty(0))
        with cache.within(Stretch(0, length, slot, target)):
            assert cache.has_previous_state(0) == (number > 0)
            actual = cache.update_conv_state(inputs, 0, conv_kernel_size=KEPT)
            cache.update_recurrent_state(torch.full((1, 2), float(number)), 0)
        assert torch.equal(actual, theirs.update_conv_state(inputs, conv_kernel_size=KEPT))
        assert torch.equal(slots.tensors[CONV][target], theirs.conv_states[0][0])
        assert slots.tensors[RECURRENT][target].tolist() == [number, number]
        slot = target


@pytest.mark.parametrize("by_tokens", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_a_split_module_computes_each_sequence_as_if_it_were_alone(
    seed: int, by_tokens: bool
) -> None:
    """Random steps over several sequences, in random stretches, from slot to slot."""
    source, slots = random.Random(seed), new_cache(16)
    module, cache = Mixer(forgets=by_tokens), ModelCache()
    splitting = Splitting({module: Carrier(HIDDEN, goes_on_by_tokens=by_tokens)})
    texts = [torch.randn(1, 24, CHANNELS) for _ in range(4)]
    expected = [Mixer()(text, StatelessCache()) for text in texts]
    done, slot_of = [0] * 4, [NO_STATE] * 4
    while min(done) < 24:
        order = [i for i in source.sample(range(4), 4) if done[i] < 24]
        order.sort(key=lambda i: slot_of[i] == NO_STATE)
        free = [s for s in range(16) if s not in slot_of]
        moves, rows = [], []
        for i in order:
            goes_on = slot_of[i] != NO_STATE and i in order[:2]
            length = 1 if goes_on else source.randint(1, 24 - done[i])
            cut = source.randint(1, length)
            lengths = [part for part in (cut, length - cut) if part]
            chunk, before = [], slot_of[i]
            for part in lengths:
                target = free.pop()
                chunk.append(StateMove(part, None if before == NO_STATE else before, target))
                before = target
            moves.append(tuple(chunk))
            rows.append((i, done[i], length))
            slot_of[i] = before
        pairs = sorted(zip(moves, rows, strict=True), key=lambda pair: pair[1][2] != 1)
        cache.step = step_of(slots, [pair[0] for pair in pairs])
        batch = torch.cat([texts[i][:, a : a + n] for _, (i, a, n) in pairs], dim=1)
        with splitting.installed():
            out = module(batch, cache)
        first = 0
        for _, (i, start, length) in pairs:
            wanted = expected[i][:, start : start + length]
            assert torch.allclose(out[:, first : first + length], wanted, atol=1e-5)
            first += length
            done[i] += length


def test_modules_are_as_they_were_while_no_model_is_called() -> None:
    module = Mixer()
    splitting = Splitting({module: Carrier(HIDDEN)})
    with splitting.installed():
        assert "forward" in module.__dict__
        x = torch.randn(1, 3, CHANNELS)
        assert torch.equal(module(x, StatelessCache()), Mixer()(x, StatelessCache()))
    assert "forward" not in module.__dict__


def test_what_is_read_but_not_written_stays() -> None:
    slots, cache = new_cache(), ModelCache()
    slots.tensors[CONV][2] = 1.0
    cache.step = step_of(slots, [(StateMove(1, 2, 5),)])
    with cache.within(None):
        state = cache.get_conv_state(0)
        assert state is not None
        state.mul_(7.0)
    assert slots.tensors[CONV][2].eq(1.0).all()
    assert slots.tensors[CONV][5].eq(7.0).all()
