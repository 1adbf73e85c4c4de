"""Steps that nobody has asked for, run for what they compile.

All their sequences lie in the first block of a cache that holds nothing yet, however long they are,
and in the spare slot of states.
"""

from __future__ import annotations

from millstream.core.plan import Chunk, Plan, StateMove
from millstream.core.request import Request, SamplingParams
from millstream.model.states.state_cache import StateCache

_TOKEN = 1


def rows_with_prompt(rows: int, prompt: int, *, block_size: int, states: StateCache | None) -> Plan:
    """Sequences of one token each, and behind them a prompt of so many, 0 for none."""
    decodes = [_chunk(1, 1, block_size, states)] * rows
    prompts = [_chunk(1, prompt, block_size, states)] * (prompt > 0)
    return Plan((*decodes, *prompts))


def _chunk(request_id: int, length: int, block_size: int, states: StateCache | None) -> Chunk:
    """A prompt, or a sequence that goes on if it has one token."""
    tokens = (_TOKEN,) * length
    moves: tuple[StateMove, ...] = ()
    if states is not None:
        source = states.spare_slot if length == 1 else None
        moves = (StateMove(length, source, states.spare_slot),)
    request = Request(id=request_id, prompt=tokens, sampling=SamplingParams(), max_tokens=1)
    table = [0] * -(-length // block_size)
    return Chunk(request, tokens, 0, table, [*tokens], is_last=True, states=moves)
