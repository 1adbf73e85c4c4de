"""What clients say who leave and come back: that they may, whose they are, what they have."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest

from millstream.errors import InvalidRequest

RESUMABLE_HEADER = "X-Resumable"
"""Asks that an answer goes on when its reader leaves, and can be read again."""
LAST_EVENT_ID = "Last-Event-ID"
"""What browsers send that connect again; specified in the HTML standard, section 9.2."""

SESSION_STATE = "millstream_session"
"""Where the state of a request has its session, if its owner is known by one; an application around
the server has its own names there."""


def owner_of(http: HTTPConnection) -> str:
    """Whose the request is; nobody's on a server without keys."""
    owner: str = getattr(http.state, "tenant", "")
    return owner


def owners_of(http: HTTPConnection) -> tuple[str, ...]:
    """Those whose things the request may name by their ids: its own, and, where visitors are known
    by their sessions, nobody's, which anyone may who sends no cookie."""
    owner = owner_of(http)
    has_session = getattr(http.state, SESSION_STATE, None) is not None
    return (owner, "") if owner and has_session else (owner,)


def asks_to_resume(http: HTTPConnection) -> bool:
    """Whether the header asks for it. Raises InvalidRequest for a value that says neither."""
    given = http.headers.get(RESUMABLE_HEADER, "false").strip().lower()
    if given not in ("true", "false", "1", "0"):
        raise InvalidRequest(f"{RESUMABLE_HEADER}: true or false", param=RESUMABLE_HEADER)
    return given in ("true", "1")


@dataclass(frozen=True, slots=True)
class ResumeQuery:
    """What a client wants that reads an answer again.

    is_streamed: its events. after: the last one that it has; -1 for all. said_by: what says so.
    """

    is_streamed: bool
    after: int
    said_by: str


def read_resume_query(http: HttpRequest) -> ResumeQuery:
    """What the query and the headers ask for. Raises InvalidRequest."""
    query = http.query_params
    said = query.get("stream", "false").lower()
    if said not in ("true", "false"):
        raise InvalidRequest("stream: true or false", param="stream")
    is_streamed = said == "true"
    name = "starting_after" if "starting_after" in query else LAST_EVENT_ID
    given = query.get("starting_after") or http.headers.get("last-event-id")
    if given is None:
        return ResumeQuery(is_streamed, -1, name)
    if not is_streamed and name == "starting_after":
        raise InvalidRequest("starting_after: only with stream=true", param="starting_after")
    if not given.isascii() or not given.isdigit() or len(given) > 9:
        raise InvalidRequest(f"{name}: the number of an event", param=name)
    return ResumeQuery(is_streamed, int(given), name)
