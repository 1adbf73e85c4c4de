"""Which tokens top-k, top-p, min-p and typical-p keep, without sorting the vocabulary.

Every filter but typical-p keeps the tokens whose probability reaches some threshold. The threshold
nearly always lies among the few most probable tokens, the leaders, which `leaders()` finds without
a sort. With them comes a bound: no other token has a larger logit. If a row's threshold is above
the bound, then everything that its filters keep is among the leaders, and the row is complete; if
it is not, more leaders are needed. typical-p keeps tokens whose surprise (negative log probability)
is nearest to the entropy; those may lie anywhere, but tokens below the bound are at least as
surprising as the bound, which tells again whether the leaders are enough.

Shares need sums over all tokens, leaders or not. Only the first filter of a row may have to measure
them (later ones measure shares of what it kept); `population()` computes them where one does.

Rules:
1. The last number of leaders is the whole vocabulary: the result is always that of a full sort.
2. How many tokens a row needs depends on that row only, and so does everything computed from them.
3. Ties with the last token kept stay. The best token always stays.
4. Order as in transformers: top-k, top-p (its share of what top-k kept), min-p, typical-p.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from millstream.core.request import SamplingParams
from millstream.model.sampling.numbers import ALL, Numbers
from millstream.model.sampling.reductions import block_values, pick, total

LEADER_COUNTS = (128, 1024, 8192)
_MOST_LEADERS = 2**21  # of all rows that are worked on together

T = TypeVar("T")

_NOTHING = float("-inf")


@dataclass(frozen=True, slots=True)
class Leaders:
    """The c most probable tokens of each of n rows.

    values: [n, c] float32, descending. ids: [n, c] int64, their tokens. bound: [n] float32, no
    other value of the row is larger; -inf where there is no other.
    """

    values: Tensor
    ids: Tensor
    bound: Tensor


@dataclass(frozen=True, slots=True)
class Population:
    """The distribution over all tokens, of which a filter measures shares.

    weights: [n, c] float32, probabilities of the leaders. mass: [n] float64, the sum of all
    probabilities as they are rounded. For typical-p only, else zeros: best [n] float32, the log
    probability of the best token; entropy [n] float32, in nats.
    """

    weights: Tensor
    mass: Tensor
    best: Tensor
    entropy: Tensor


def has_filters(params: SamplingParams) -> bool:
    """Whether any filter can drop a token."""
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0 or params.typical_p < 1


def needs_population(params: SamplingParams) -> bool:
    """Whether the first filter measures shares of all tokens. It is the only one that can."""
    return params.top_k == 0 and (params.top_p < 1 or (params.min_p == 0 and params.typical_p < 1))


def leader_counts(vocab: int) -> list[int]:
    """How many leaders of a row to look at, in turn, until they decide. The last is the whole
    vocabulary."""
    return [count for count in LEADER_COUNTS if count < vocab] + [vocab]


def in_groups(rows: Sequence[T], num_leaders: int) -> Iterator[Sequence[T]]:
    """The rows in groups that have few enough leaders to be put in order together."""
    size = max(1, _MOST_LEADERS // num_leaders)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def leaders(rows: Tensor, maxima: Tensor, count: int) -> Leaders:
    """The `count` leaders of rows [n, vocab] float32. maxima: the rows' block_maxima()."""
    if count >= rows.shape[1]:
        values, ids = rows.sort(dim=-1, descending=True, stable=True)
        return Leaders(values, ids, torch.full_like(values[:, 0], _NOTHING))
    if 4 * count >= maxima.shape[1]:
        values, ids = rows.topk(count, dim=-1)
        return Leaders(values, ids, values[:, -1])
    # Each of these blocks holds a value as large as the best of any block left out, so nothing that
    # is larger than the last value found can be elsewhere.
    blocks = maxima.topk(count, dim=-1).indices
    values, ids = block_values(rows, blocks)
    values, places = values.topk(count, dim=-1)
    return Leaders(values, ids.gather(1, places), values[:, -1])


def population(scaled: Tensor, ids: Tensor, space: Tensor, *, with_entropy: bool) -> Population:
    """The distribution of all tokens, and the shares of the leaders in it.

    scaled: [n, vocab] float32, logits over temperature, 0 for the best token. ids: [n, c] int64,
    the leaders. space: a tensor like `scaled`, which is overwritten.
    """
    weights = torch.softmax(scaled, dim=-1, out=space)
    mass = total(weights)
    best = entropy = torch.zeros_like(scaled[:, 0])
    if with_entropy:
        best, entropy = _entropy(scaled, weights)
    return Population(weights.gather(1, ids), mass, best, entropy)


def join(parts: Sequence[Leaders]) -> Leaders:
    """The leaders of all rows, in order; each of `parts` has as many per row."""
    return Leaders(*_columns(parts))


def join_populations(parts: Sequence[Population]) -> Population:
    """The populations of all rows, in order."""
    return Population(*_columns(parts))


def keep(
    lead: Leaders, numbers: Numbers, everyone: Population | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Which leaders the filters keep: `kept`, `weights`, `is_complete`.

    lead: with logits over temperature for values, 0 for the best. everyone: the rows' population,
    given if any of them needs_population(). kept: [n, c] bool. weights: [n, c] float32, to draw the
    kept by. is_complete: [n] bool; where it is False, more leaders have to be looked at.
    """
    values, bound, sizes = lead.values, lead.bound, numbers.sizes
    knows_all = bound == _NOTHING
    last = values.gather(1, sizes.clamp(max=values.shape[1]) - 1)
    threshold = last.masked_fill(sizes == ALL, _NOTHING)
    is_complete = (sizes == ALL).squeeze(1) | (threshold.squeeze(1) > bound) | knows_all
    weights, mass = _shares(values, threshold)
    if everyone is not None:
        by_all = numbers.measure_everyone
        weights = torch.where(by_all, everyone.weights, weights)
        mass = torch.where(by_all, everyone.mass.unsqueeze(1), mass)
    if numbers.has_top_p:
        # A token stays while the mass of all better ones is below top_p.
        before = weights.double().cumsum(dim=-1) - weights
        num_kept = (before < numbers.limits * mass).sum(dim=-1, keepdim=True).clamp_(min=1)
        last = values.gather(1, num_kept - 1).masked_fill_(numbers.limits == math.inf, _NOTHING)
        threshold = torch.maximum(threshold, last)
    threshold = torch.maximum(threshold, numbers.ratios).clamp_(max=0.0)
    kept = (values >= threshold) & (values > _NOTHING)
    reached = (threshold.squeeze(1) > bound) | knows_all
    if not numbers.has_typical:
        return kept, weights, is_complete & reached
    is_pure = numbers.measure_everyone & (numbers.limits == math.inf)
    within, reaches = _typical(lead, numbers.typical, kept, everyone, is_pure.squeeze(1))
    return kept & within, weights, is_complete & (reached | is_pure.squeeze(1)) & reaches


def choose(lead: Leaders, kept: Tensor, weights: Tensor, points: Tensor, *, vocab: int) -> Tensor:
    """Token ids [n] int64, drawn from the kept leaders in the order of the vocabulary.

    kept, weights: [n, c], from keep(). points: [n] float64 in [0, 1).
    """
    weights = weights.masked_fill(~kept, 0.0)
    if lead.ids.shape[1] == vocab:
        return pick(torch.zeros_like(weights).scatter_(1, lead.ids, weights), points)
    ids, order = lead.ids.sort(dim=-1)
    index = pick(weights.gather(1, order), points)
    return ids.gather(1, index.unsqueeze(1)).squeeze(1)


def _typical(
    lead: Leaders,
    shares: Tensor,
    kept: Tensor,
    everyone: Population | None,
    is_pure: Tensor,
) -> tuple[Tensor, Tensor]:
    """Locally typical sampling (Meister et al., 2022): which leaders are typical, [n, c] bool, and
    whether enough leaders were looked at, [n] bool.

    Tokens whose surprise is nearest to the entropy stay until their mass reaches typical_p, which
    is `shares` [n, 1]. is_pure: [n] bool, rows without another filter, measured against everyone.
    """
    remaining = lead.values.masked_fill(~kept, _NOTHING)
    weights = remaining.softmax(dim=-1)
    best, entropy = _entropy(remaining, weights)
    mass = total(weights)
    if everyone is not None:
        weights = torch.where(is_pure.unsqueeze(1), everyone.weights, weights)
        best = torch.where(is_pure, everyone.best, best)
        entropy = torch.where(is_pure, everyone.entropy, entropy)
        mass = torch.where(is_pure, everyone.mass, mass)
    shifts = (-(remaining + best.unsqueeze(1)) - entropy.unsqueeze(1)).abs()
    ordered, order = shifts.sort(dim=-1, stable=True)
    reached = weights.gather(1, order).double().cumsum(dim=-1)
    num_below = (reached < shares * mass.unsqueeze(1)).sum(dim=-1, keepdim=True)
    limit = ordered.gather(1, num_below.clamp_(max=ordered.shape[1] - 1))
    # Everything not looked at is more surprising than `bound`, so it is farther than this.
    surplus = -(lead.bound + best) - entropy
    reaches = (surplus > limit.squeeze(1)) | (lead.bound == _NOTHING) | ~is_pure
    is_typical = shares < 1
    # Only where the mass is never reached could `limit` be that of a dropped token.
    return (shifts <= limit) | ~is_typical, reaches | ~is_typical.squeeze(1)


def _entropy(scaled: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Log probability of the best token, and entropy in nats, of each row of softmax(scaled): [n]
    each. scaled, weights: [n, c]; 0 in `scaled` is the best token."""
    logs = scaled.log_softmax(dim=-1)
    best = logs.amax(dim=-1)
    return best, -total((logs * weights).nan_to_num_(nan=0.0)).float()


def _shares(values: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [n, c] among the values that reach the threshold [n, 1]; their sums [n, 1]."""
    weights = values.masked_fill(values < threshold, _NOTHING).softmax(dim=-1)
    return weights, total(weights).unsqueeze(1)


def _columns(parts: Sequence[Leaders] | Sequence[Population]) -> list[Tensor]:
    """Each field of the parts, concatenated."""
    if len(parts) == 1:
        return [getattr(parts[0], field.name) for field in fields(parts[0])]
    return [torch.cat([getattr(part, field.name) for part in parts]) for field in fields(parts[0])]
