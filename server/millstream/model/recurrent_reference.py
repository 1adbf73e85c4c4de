"""The functions of compiled kernels that carry states, in plain torch: `reference` has the others.

Both take the rows of several sequences, one sequence after the other: sources [n] (int64 or int32)
are the slots of the states before them, or -1 where a sequence begins; targets [n]: of the states
after them; firsts [n + 1]: the first row of each sequence, and the number of rows. Sequences are
computed in their order, so one may go on from what another has left; a source that is no target
stays as it is.

Rule: a row's result does not depend on which rows are computed with it, or where a text is cut.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def short_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    states: Tensor,
    sources: Tensor,
    targets: Tensor,
    firsts: Tensor,
    silu: bool = False,
) -> Tensor:
    """Causal convolution of each channel of x [T, C] by itself -> [T, C].

    weight [C, k], bias [C]; states [slots, C, s], s >= k - 1: the last s inputs, the newest last.
    Rounded to the dtype before the activation, and after it.
    """
    out, width = torch.empty_like(x), weight.shape[1]
    for rows, source, target in _sequences(sources, targets, firsts):
        before = torch.zeros_like(states[target]) if source < 0 else states[source]
        inputs = torch.cat([before, x[rows].T], dim=1)
        length = rows.stop - rows.start
        first = states.shape[2] - width + 1
        parts = (inputs[:, first + k : first + k + length] for k in range(width))
        products = (p.float() * weight[:, k : k + 1].float() for k, p in enumerate(parts))
        found = sum(products, torch.zeros(())).T
        found = (found if bias is None else found + bias.float()).to(x.dtype)
        out[rows] = F.silu(found) if silu else found
        states[target] = inputs[:, length:]
    return out


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    g: Tensor,
    beta: Tensor,
    states: Tensor,
    sources: Tensor,
    targets: Tensor,
    firsts: Tensor,
    normalise: bool = False,
) -> Tensor:
    """Linear attention by the gated delta rule -> [T, heads, dv]; https://arxiv.org/abs/2412.06464.

    query, key [T, kh, d], each for heads / kh heads of value [T, heads, dv]; g: the logarithm of
    the decay, [T, heads] or, one for each row of a head's matrix, [T, heads, d], float32; beta
    [T, heads]; states [slots, heads, d, dv], float32. normalise: query and key have length 1.
    All is computed in float; the result is rounded to value's dtype.
    """
    out, repeats = torch.empty_like(value), value.shape[1] // key.shape[1]
    wide_query, wide_key = (
        (_normalised(x.float()) if normalise else x.float()).repeat_interleave(repeats, dim=1)
        for x in (query, key)
    )
    wide_query = wide_query * query.shape[2] ** -0.5
    decay = (g if g.dim() == 3 else g.unsqueeze(2)).exp().unsqueeze(3)
    for rows, source, target in _sequences(sources, targets, firsts):
        state = torch.zeros_like(states[target]) if source < 0 else states[source]
        for row in range(rows.start, rows.stop):
            state = state * decay[row]
            held = (state * wide_key[row].unsqueeze(2)).sum(1)
            change = (value[row].float() - held) * beta[row].float().unsqueeze(1)
            state = state + wide_key[row].unsqueeze(2) * change.unsqueeze(1)
            out[row] = (state * wide_query[row].unsqueeze(2)).sum(1).to(out.dtype)
        states[target] = state
    return out


def _sequences(
    sources: Tensor, targets: Tensor, firsts: Tensor
) -> Iterator[tuple[slice, int, int]]:
    """The rows of each sequence, and the slots of its states."""
    bounds: list[int] = firsts.tolist()
    rows = map(slice, bounds, bounds[1:])
    yield from zip(rows, sources.tolist(), targets.tolist(), strict=True)


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
