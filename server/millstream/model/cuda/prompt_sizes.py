"""The sizes of steps with prompts that are captured.

They are few, since each is captured before anybody is served. Between two numbers of prompt tokens
lies a factor of up to two where a step takes as long as reading the weights does, however many
tokens it has, and of up to one and a half above.
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.core.plan import Plan

_TOKENS = (32, 64, 128, 192, 256, 384, 512, 768, 1024)
_DECODES = (0, 16, 64, 128, 256)
_TOKENS_OF_A_CHUNK = 16  # of prompts shorter than that, a step has fewer than a graph has room for
_MOST_CHUNKS = 32


class StepSize(NamedTuple):
    """What a captured step has room for. decodes: rows of sequences that generate; tokens: of
    prompts; chunks: those that the tokens are of."""

    decodes: int
    tokens: int
    chunks: int

    @property
    def num_rows(self) -> int:
        """Rows of the batch: decode rows, then those of the prompts."""
        return self.decodes + self.tokens

    @property
    def num_wanted(self) -> int:
        """Rows that logits are computed for: one for each sequence."""
        return self.decodes + self.chunks


def step_sizes(*, max_rows: int, max_tokens: int) -> list[StepSize]:
    """The sizes to capture, those with the fewest prompt tokens first: 45 at most.

    max_rows, max_tokens: of a step.
    """
    largest = min(max_rows, _DECODES[-1])
    decodes = [*(count for count in _DECODES if count < largest), largest]
    return [
        StepSize(count, tokens, min(tokens // _TOKENS_OF_A_CHUNK, _MOST_CHUNKS, max_rows))
        for tokens in _TOKENS
        if tokens <= max_tokens
        for count in decodes
    ]


def size_of(plan: Plan) -> StepSize:
    """The size of a plan itself. Chunks of one token come first, and are decode rows."""
    decodes = next((i for i, c in enumerate(plan.chunks) if len(c.tokens) != 1), len(plan.chunks))
    return StepSize(decodes, plan.num_tokens - decodes, len(plan.chunks) - decodes)
