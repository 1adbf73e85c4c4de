"""What the routes share: made once by the composition root, read by everyone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any, TypeAlias, TypeVar

from starlette.requests import HTTPConnection, Request

from millstream.answering.runs import Runs
from millstream.api.peers.answer_ids import new_answer_id
from millstream.api.peers.peers import Peers
from millstream.api.wire.json_body import read_json
from millstream.generation.context import ModelContext
from millstream.metrics.counts import CountSource
from millstream.metrics.ended_request import Trace
from millstream.metrics.http_metrics import HttpMetrics
from millstream.quotas.key_ring import KeyRing
from millstream.quotas.quota import Quota
from millstream.settings import Settings
from millstream.store.store import Store

T = TypeVar("T")

OwnerFunction: TypeAlias = Callable[[HTTPConnection], Awaitable[str | None] | str | None]
"""Says whose a request, or a WebSocket, is; None if it is nobody's who may use the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext(ModelContext):
    """fingerprint: names this build. session_secret: what cookies are signed with.

    owner: says whose a request is, where keys and cookies do not. keys: those that open the server,
    if it has any. store: None if nothing is kept. runs: answers being made here. peers: the other
    HTTP workers of the server; None if there are none.
    socket_answers: what is being said over WebSockets, until its last word. http_metrics: counts of
    what was answered. counts: what all HTTP processes have counted; None if this is the only one.
    trace: hears of each request when it has ended.
    """

    settings: Settings
    fingerprint: str
    session_secret: bytes = field(default_factory=lambda: token_bytes(32), repr=False)
    owner: OwnerFunction | None = None
    keys: KeyRing | None = None
    store: Store | None = None
    runs: Runs = field(default_factory=Runs)
    peers: Peers | None = None
    socket_answers: set[asyncio.Task[None]] = field(default_factory=set)
    http_metrics: HttpMetrics = field(default_factory=HttpMetrics)
    counts: CountSource | None = None
    trace: Trace | None = None

    def answer_id(self, prefix: str, num_digits: int) -> str:
        """A new id for an answer that is made here, with so many hexadecimal digits."""
        worker = None if self.peers is None else self.peers.number
        return new_answer_id(prefix, num_digits, worker=worker)

    def quota_of(self, owner: str) -> Quota | None:
        """What an owner may ask for, if that is known by a key. Raises Unauthorized for one whose
        key is no longer known."""
        return None if self.keys is None else self.keys.quota(owner)

    async def read_body(self, http: Request, check: Callable[[dict[str, Any]], T]) -> T:
        """What `check` makes of a request's JSON object. Raises as `read_json()` does."""
        if self.settings.log_prompts:
            check = http.state.record.logging(check)
        return await read_json(
            http, limit=self.settings.payload_limit, check=check, threads=self.workers.bodies
        )
