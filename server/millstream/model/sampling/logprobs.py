"""Log probabilities of tokens, by the model's own distribution.

A token's log probability and its rank (1 for the most probable) need the whole row, but no order of
it. The list of the most probable tokens is found among the row's leaders (see filters.py): where
the list ends in a tie with tokens that may not be among them, the row is done again with more.

Rules:
1. Probabilities are the float32 log_softmax, in nats, of the logits as they left the model.
2. Ties are broken by the lower token id, in ranks and in the top list alike.
3. Only a few rows are float32 at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from millstream.core.plan import Chunk
from millstream.core.request import TokenLogprob
from millstream.model.sampling import filters
from millstream.model.sampling.reductions import (
    Workspace,
    block_maxima,
    float_rows,
    sum_before,
    total,
)
from millstream.model.transfers import Download, upload


class Asked(NamedTuple):
    """A token whose log probability is wanted, by the distribution of one row of the logits.

    num_top: how many of the most probable tokens are wanted with it.
    """

    row: int
    token: int
    num_top: int


def prompt_logprobs(logits: Tensor, chunks: Sequence[Chunk]) -> dict[int, tuple[TokenLogprob, ...]]:
    """The log probabilities of prompt tokens, by request id.

    logits: [n, vocab] of any float dtype, a row for each scored position of each chunk, in order;
    the row of a position is the distribution of the token that follows it.
    """
    asked: list[Asked] = []
    scored = [chunk for chunk in chunks if chunk.scored]
    if not scored:
        return {}
    for chunk in scored:
        num_top = chunk.request.prompt_logprobs or 0
        asked += [
            Asked(row, chunk.history[position + 1], num_top)
            for row, position in enumerate(chunk.scored, len(asked))
        ]
    results = iter(token_logprobs(logits, asked))
    return {chunk.request_id: tuple(next(results) for _ in chunk.scored) for chunk in scored}


def sampled_logprobs(
    logits: Tensor, chunks: Sequence[Chunk | None], tokens: Sequence[int]
) -> dict[int, TokenLogprob]:
    """The log probabilities of drawn tokens, by their rows, for requests that ask for them.

    logits: [n, vocab] of any float dtype. chunks, tokens: one for each row; None for a row that is
    nobody's, a negative token where none was drawn.
    """
    asked: list[Asked] = []
    for row, (chunk, token) in enumerate(zip(chunks, tokens, strict=True)):
        if chunk is None:
            continue
        num_top = chunk.request.sampling.logprobs
        if num_top is not None and token >= 0:
            asked.append(Asked(row, token, num_top))
    if not asked:
        return {}
    rows = (item.row for item in asked)
    return dict(zip(rows, token_logprobs(logits, asked), strict=True))


@torch.inference_mode()
def token_logprobs(logits: Tensor, asked: Sequence[Asked]) -> list[TokenLogprob]:
    """The log probability, in nats, for each of `asked`. logits: [n, vocab] of any float dtype."""
    vocab = logits.shape[1]
    done: dict[int, TokenLogprob] = {}
    for count in filters.leader_counts(vocab):
        left = [i for i, item in enumerate(asked) if i not in done]
        left = [i for i in left if min(asked[i].num_top, vocab) <= count]
        for group in filters.in_groups(left, count):
            results = _with_leaders(logits, [asked[i] for i in group], count)
            done.update((i, result) for i, result in zip(group, results, strict=True) if result)
    return [done[i] for i in range(len(asked))]


def _with_leaders(logits: Tensor, asked: list[Asked], count: int) -> list[TokenLogprob | None]:
    """What `count` leaders of each row tell: None where the top list ends in a tie with tokens that
    may not be among them."""
    num_top = min(max(item.num_top for item in asked), logits.shape[1])
    own, ranks, leads, tops = [], [], [], []
    for tile, space, logs in Workspace(asked, logits.shape[1], logits.device).tiles():
        tokens = upload(torch.tensor([[item.token] for item in tile]), logits.device)
        values = float_rows(logits, [item.row for item in tile], space)
        torch.log_softmax(values, dim=-1, out=logs)
        own.append(logs.gather(1, tokens))
        if num_top:
            lead = filters.leaders(values, block_maxima(values), count)
            leads.append(lead)
            tops.append(logs.gather(1, lead.ids))
        ranks.append(_ranks(values, tokens, logs))
    wanted = [torch.cat(own).squeeze(1), torch.cat(ranks)]
    if num_top:
        wanted += _in_order(filters.join(leads), torch.cat(tops), num_top)
    own_logs, own_ranks, *top_lists = Download(wanted).lists()
    singles = zip(asked, own_logs, own_ranks, strict=True)
    if not num_top:
        return [TokenLogprob(item.token, log, rank, ()) for item, log, rank in singles]
    ids, top_logs, num_certain = top_lists
    return [
        TokenLogprob(item.token, log, rank, tuple(zip(top, row_logs, strict=True))[: item.num_top])
        if certain >= min(item.num_top, logits.shape[1])
        else None
        for (item, log, rank), top, row_logs, certain in zip(
            singles, ids, top_logs, num_certain, strict=True
        )
    ]


def _in_order(lead: filters.Leaders, logs: Tensor, num_top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [n, num_top] and log probabilities [n, num_top] of the first leaders by value, then id;
    and how many leaders of each row are larger than everything that is no leader, [n].

    logs: [n, c] float32, the leaders' log probabilities.
    """
    ids, order = lead.ids.sort(dim=-1)
    by_value = lead.values.gather(1, order).sort(dim=-1, descending=True, stable=True).indices
    by_value = by_value[:, :num_top]
    bound = lead.bound.unsqueeze(1)
    is_certain = (lead.values > bound) | (bound == float("-inf"))
    return (
        ids.gather(1, by_value),
        logs.gather(1, order.gather(1, by_value)),
        is_certain.sum(dim=-1),
    )


def _ranks(values: Tensor, tokens: Tensor, space: Tensor) -> Tensor:
    """Ranks [r] int64: 1 for the most probable token; equals in order of their ids.

    values: [r, vocab] float32. tokens: [r, 1] int64. space: a tensor like `values`, overwritten.
    """
    own = values.gather(1, tokens)
    num_better = total(torch.gt(values, own, out=space))
    num_equal = sum_before(torch.eq(values, own, out=space), tokens)
    return (num_better + num_equal.squeeze(1)).long() + 1
