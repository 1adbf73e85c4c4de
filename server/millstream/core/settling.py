"""What counts of a step in which tokens were guessed.

Rules:
1. A chunk after guesses counts if just these were drawn: its own token was drawn from the right
   distribution, with the right number of the request's random stream.
2. Where no token was found after a right guess, the chunk does not count. The next step comes to
   the same place without that guess, and tells why.
3. Where logits are not finite, nothing of that request counts: a wrong guess may have spoilt them.
   It is computed again without guesses.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.core.plan import INVALID_TOKEN, REJECTED_TOKEN, Chunk


def settled(chunks: Sequence[Chunk], tokens: Sequence[int]) -> list[int]:
    """The tokens of a step, REJECTED_TOKEN for chunks that do not count.

    chunks: the sampled ones. tokens: what was drawn for each of them.
    """
    guessing = {chunk.request_id for chunk in chunks if chunk.assumed}
    if not guessing:
        return list(tokens)
    pairs = list(zip(chunks, tokens, strict=True))
    broken = {chunk.request_id for chunk, token in pairs if token == INVALID_TOKEN} & guessing
    latest: dict[int, int] = {}
    settled_tokens: list[int] = []
    for chunk, token in pairs:
        is_wrong = chunk.assumed and (latest[chunk.request_id] != chunk.assumed[-1] or token < 0)
        rejects = is_wrong or chunk.request_id in broken
        latest[chunk.request_id] = REJECTED_TOKEN if rejects else token
        settled_tokens.append(latest[chunk.request_id])
    return settled_tokens
