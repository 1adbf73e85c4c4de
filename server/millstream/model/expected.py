"""Tokens that a step reads before the host knows them: they stay on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from millstream.core.plan import UNKNOWN_TOKEN, Plan
from millstream.model.transfers import upload


def fill_in(
    token_ids: Tensor, plan: Plan, drawn: Callable[[], Tensor], request_ids: Sequence[int]
) -> None:
    """Puts drawn tokens in the place of the plan's unknown ones.

    token_ids [n] int64: those of the plan, changed in place. drawn: gives the tokens [m] int64 of
    the step before, one for each of `request_ids`. Negative ones, which a step gives instead of a
    token, become 0: what is computed from them is void, but it has to be a token.
    """
    places = [i for i, chunk in enumerate(plan.chunks) if chunk.tokens[0] == UNKNOWN_TOKEN]
    if not places:
        return
    row_of = {request_id: row for row, request_id in enumerate(request_ids)}
    rows = [row_of[plan.chunks[place].request_id] for place in places]
    # An unknown token is a chunk of its own, and chunks of one token come first: place for place.
    indices = upload(torch.tensor([places, rows]), token_ids.device)
    token_ids.index_copy_(0, indices[0], drawn()[indices[1]].clamp_(min=0))
