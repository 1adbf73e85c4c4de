"""How far back the tokens of a layer see, found by asking the function of its mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from millstream.errors import StartupError
from millstream.model.attention import Reach

_ROWS = 16

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a query sees a key, from the numbers of sequence, head, query and key."""


def find_reach(function: MaskFunction, max_context: int, device: torch.device) -> Reach:
    """How far back tokens see by `function`: all, a sliding window, or chunks.

    Raises StartupError if it is none of these, judged by rows spread over the context.
    """
    keys = torch.arange(max_context, device=device)
    window = int(_row(function, max_context - 1, keys).sum())
    chunk = int(_column(function, keys, 0).sum())  # the first one: those who see its first token
    step = max(max_context // _ROWS, 1)
    spread = {*range(0, max_context, step), max_context - 1}
    for size, reach in ((window, Reach(window=window)), (chunk, Reach(chunk=chunk))):
        rows = spread | {size - 1, size, size + 1, 2 * size - 1, 2 * size}
        if all(_is_reach(reach, function, row, keys) for row in rows if 0 <= row < max_context):
            return reach if size < max_context else Reach()
    raise StartupError(
        "a layer's attention is neither full nor a sliding window nor chunked within "
        f"{max_context} tokens (it may be with a smaller --max-total-tokens)"
    )


def _is_reach(reach: Reach, function: MaskFunction, row: int, keys: Tensor) -> bool:
    """Whether the position `row` sees what `reach` says."""
    first = reach.first(torch.tensor(row, device=keys.device))
    assert first is not None
    return torch.equal(_row(function, row, keys), (keys <= row) & (keys >= first))


def _row(function: MaskFunction, query: int, keys: Tensor) -> Tensor:
    """Which of the positions `keys` [n] the position `query` sees: [n] bool."""
    zero = torch.zeros_like(keys[:1])
    try:
        return function(zero, zero, zero + query, keys).expand(len(keys))
    except IndexError as error:
        raise StartupError("a layer's mask depends on the tokens, not on positions only") from error


def _column(function: MaskFunction, queries: Tensor, key: int) -> Tensor:
    """Which of the positions `queries` [n] see the position `key`: [n] bool."""
    zero = torch.zeros_like(queries[:1])
    return function(zero, zero, queries, zero + key).expand(len(queries))
