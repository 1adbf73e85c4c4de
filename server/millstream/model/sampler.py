"""Drawing the next token of every row, in one vectorised pass.

Rules:
1. Rows that ask for nothing pay nothing: greedy rows are an argmax, and the sort behind top-k and
   top-p runs only for rows that use them.
2. A row's result depends on its logits, its parameters and its own random stream only. Number i of
   the stream of seed s is BLAKE2b(s, i), so preemption and neighbours change nothing.
3. Order as in transformers: temperature, then top-k, then top-p (`LogitsProcessorList`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from millstream.core.request import INVALID_TOKEN, SamplingParams


def uniform(seed: int, counter: int) -> float:
    """Number `counter` of the stream `seed`: uniform in [0, 1), 53 bits."""
    digest = blake2b(struct.pack("<QQ", seed, counter), digest_size=8).digest()
    number: int = struct.unpack("<Q", digest)[0]
    return (number >> 11) * 2.0**-53


def sample(logits: Tensor, rows: Sequence[tuple[SamplingParams, int]]) -> list[int]:
    """One token per row.

    logits: [n, vocab], any float dtype. rows: parameters and stream counter of each row.
    Returns n token ids; INVALID_TOKEN for a row whose logits hold NaN or have no finite maximum.
    """
    best, tokens = logits.max(dim=-1)
    drawn = [index for index, (params, _) in enumerate(rows) if not params.is_greedy]
    if drawn:
        picked = logits if len(drawn) == len(rows) else logits[drawn]
        tokens[drawn] = _draw(picked.float(), [rows[index] for index in drawn])
    tokens.masked_fill_(~torch.isfinite(best), INVALID_TOKEN)
    result: list[int] = tokens.tolist()
    return result


def _draw(logits: Tensor, rows: list[tuple[SamplingParams, int]]) -> Tensor:
    """Inverse transform sampling in vocabulary order: one uniform number per row."""
    device = logits.device
    temperatures = torch.tensor([params.temperature for params, _ in rows], device=device)
    logits = logits / temperatures.unsqueeze(1)
    filtered = [i for i, (p, _) in enumerate(rows) if p.top_k > 0 or p.top_p < 1.0]
    if filtered:
        kept = keep_top(logits[filtered], [rows[index][0] for index in filtered])
        logits[filtered] = logits[filtered].masked_fill(~kept, float("-inf"))
    cumulative = logits.softmax(dim=-1).double().cumsum(dim=-1)
    numbers = [uniform(params.seed, counter) for params, counter in rows]
    points = torch.tensor(numbers, dtype=torch.float64, device=device).unsqueeze(1)
    # Scaled by the sum, so rounding can never point past the last token that has a probability.
    return torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True).squeeze(1)


def keep_top(logits: Tensor, params: list[SamplingParams]) -> Tensor:
    """Which tokens top-k and top-p keep, [n, vocab] bool. Ties with the last one kept stay."""
    device, vocab = logits.device, logits.shape[1]
    ordered = logits.sort(dim=-1, descending=True).values
    counts = torch.tensor([min(p.top_k or vocab, vocab) for p in params], device=device)
    smallest = ordered.gather(1, (counts - 1).unsqueeze(1))
    ordered = ordered.masked_fill(ordered < smallest, float("-inf"))
    # 1 keeps all, also where rounding makes the sum reach 1 before the end.
    limits = torch.tensor([p.top_p if p.top_p < 1 else 2.0 for p in params], device=device)
    probabilities = ordered.softmax(dim=-1)
    # A token stays while the probability of all better ones is below top_p; the best always does.
    before = probabilities.cumsum(dim=-1) - probabilities
    num_kept = (before < limits.unsqueeze(1)).sum(dim=-1, keepdim=True).clamp(min=1)
    smallest = torch.maximum(smallest, ordered.gather(1, num_kept - 1))
    return logits >= smallest
