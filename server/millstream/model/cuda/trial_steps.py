"""Steps that nobody has asked for, run for what they compile and for the memory that they need.

All their sequences lie in the first block of a cache that holds nothing yet, however long they are,
and in the spare slot of states.
"""

from __future__ import annotations

from millstream.core.plan import Chunk, Plan, StateMove
from millstream.core.request import Request, SamplingParams
from millstream.model.execution import EagerExecution
from millstream.model.sampling.logprobs import prompt_logprobs, sampled_logprobs
from millstream.model.sampling.sampler import Sampler
from millstream.model.states.state_cache import StateCache

_ALL_OPTIONS = SamplingParams(
    temperature=0.8,
    top_p=0.95,
    min_p=0.01,
    typical_p=0.95,
    repetition_penalty=1.1,
    frequency_penalty=0.1,
    presence_penalty=0.1,
    logprobs=5,
)
_TOKEN = 1


def rows_with_prompt(rows: int, prompt: int, *, block_size: int, states: StateCache | None) -> Plan:
    """Sequences of one token each, and behind them a prompt of so many, 0 for none."""
    decodes = [_chunk(1, 1, block_size, states)] * rows
    prompts = [_chunk(1, prompt, block_size, states)] * (prompt > 0)
    return Plan((*decodes, *prompts))


def largest_step(
    *, max_rows: int, max_tokens: int, max_context: int, block_size: int, states: StateCache | None
) -> Plan:
    """The step that needs the most memory: as many sequences and tokens as a step may have, all of
    them sampled with many options, and log probabilities of all tokens of the prompts.

    max_context: tokens of the longest sequence.
    """
    num_prompts = min(-(-max_tokens // max_context), max_rows)
    decodes = max(min(max_rows - num_prompts, max_tokens - 2 * num_prompts), 0)
    left = min(max_tokens - decodes, num_prompts * max_context)
    lengths = [(left + i) // num_prompts for i in range(num_prompts)]
    in_order = sorted([1] * decodes + lengths)  # decode rows come first
    chunks = (_chunk(i, length, block_size, states) for i, length in enumerate(in_order))
    return Plan(tuple(chunk._replace(score_from=0) for chunk in chunks))


def run_ahead(eager: EagerExecution, plan: Plan) -> None:
    """Computes a step with its draws and log probabilities, as a ModelRunner does whose steps are
    planned ahead: the same step is computed again before the first one's tokens are read, so there
    are the logits of two. Raises what torch raises."""
    sampler = Sampler()
    sampled = [chunk for chunk in plan.chunks if chunk.is_last]
    logits = eager.logits(plan)
    rows = logits[: len(sampled)]
    drawing = sampler.launch(rows, sampled)
    ahead = eager.logits(plan)
    tokens = sampler.finish(drawing).tokens
    sampled_logprobs(rows, sampled, tokens)
    prompt_logprobs(logits[len(sampled) :], plan.chunks)
    sampler.finish(sampler.launch(ahead[: len(sampled)], sampled))


def _chunk(request_id: int, length: int, block_size: int, states: StateCache | None) -> Chunk:
    """A prompt, or a sequence that goes on if it has one token."""
    tokens = (_TOKEN,) * length
    moves: tuple[StateMove, ...] = ()
    if states is not None:
        source = states.spare_slot if length == 1 else None
        moves = (StateMove(length, source, states.spare_slot),)
    request = Request(
        id=request_id,
        prompt=tokens,
        sampling=_ALL_OPTIONS,
        max_tokens=1,
        prompt_logprobs=_ALL_OPTIONS.logprobs,
    )
    table = [0] * -(-length // block_size)
    return Chunk(request, tokens, 0, table, [*tokens], is_last=True, states=moves)
