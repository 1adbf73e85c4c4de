"""Prompt tokens that wait for their first event: the second bound of admission.

Rules: each request is counted from when it is taken until its first news or its end, whichever
comes first, once; the total is kept, not summed. Requests that follow another one wait for its
prompt, not for one of their own, so they are always taken.
"""

from __future__ import annotations

from millstream.core.request import Request
from millstream.errors import Overloaded


class WaitingPrompts:
    """The requests whose prompts wait, and how long they are. limit: tokens, or None."""

    def __init__(self, *, limit: int | None) -> None:
        self.limit = limit
        self._lengths: dict[int, int] = {}
        self.num_tokens = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, request: Request) -> None:
        """Counts one more. Raises Overloaded if that were too many.

        A prompt that is longer than the limit is taken when no other waits.
        """
        if request.follows is not None:
            return
        total = self.num_tokens + len(request.prompt)
        if self.num_tokens and self.limit is not None and total > self.limit:
            raise Overloaded(
                f"Model is overloaded: {self.num_tokens} prompt tokens are waiting already",
                flag="--max-queue-tokens",
            )
        self._lengths[request.id] = len(request.prompt)
        self.num_tokens = total

    def remove(self, request_id: int) -> None:
        """Counts a request no more: it has its first token, or it ended. Others are ignored."""
        self.num_tokens -= self._lengths.pop(request_id, 0)
