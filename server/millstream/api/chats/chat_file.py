"""A whole chat as one JSON document: every response of its tree, whatever branch it is in.

Rules: what is written can be read, here or by another server; responses stand in the order in which
they were begun, so each follows one that is before it; versions of a question have items of the
same id. What was said of an answer that is still being made is there, and its status says so.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from millstream.answering.runs import Run
from millstream.api.chats.bodies import Settings, Title
from millstream.api.chats.shown import FindRun
from millstream.api.openai.responses.resource import with_output
from millstream.api.openai.responses.shapes import ResponseObject
from millstream.api.openai.responses.timing import Timing
from millstream.intake.responses.item_kinds import Id
from millstream.intake.responses.items import MAX_ITEMS
from millstream.intake.strict_body import Body
from millstream.store.chats import ChatBranch
from millstream.store.records import ChatTurn

MAX_TURNS = 1_000
_KIND: Literal["chat.export"] = "chat.export"

Moment = Annotated[int, Field(ge=0, le=2**40)]


class FileTurn(Body):
    """One response. follows: the id of the one before it in its branch. input: what it answers."""

    follows: Id | None
    input: list[Any] = Field(max_length=MAX_ITEMS)
    response: ResponseObject
    timing: Timing | None


class ChatFile(Body):
    """Times are seconds since the epoch. leaf: the response where the current branch ends."""

    object: Literal["chat.export"]
    version: Literal[1]
    exported_at: Moment
    created_at: Moment
    updated_at: Moment
    title: Title | None
    settings: Settings
    leaf: Id | None
    responses: list[FileTurn] = Field(max_length=MAX_TURNS)


def chat_as_file(whole: ChatBranch, find_run: FindRun) -> dict[str, Any]:
    """The document. whole: a chat with the turns of all its responses."""
    chat = whole.chat
    return {
        "object": _KIND,
        "version": 1,
        "exported_at": int(time.time()),
        "created_at": chat.created,
        "updated_at": chat.changed // 1_000_000,
        "title": chat.title,
        "settings": chat.settings,
        "leaf": chat.leaf,
        "responses": [_turn(turn, whole, find_run(turn.response.id)) for turn in whole.turns],
    }


def _turn(turn: ChatTurn, whole: ChatBranch, run: Run | None) -> dict[str, Any]:
    stored = turn.response
    if run is None:
        response = with_output(stored.resource, [item.data for item in turn.outputs])
        response |= {"status": stored.status}
    else:
        response = run.snapshot()
    # What it followed at first may be deleted.
    before = stored.previous_id if stored.previous_id in whole.tree else None
    return {
        "follows": before,
        "input": [item.data for item in turn.inputs],
        "response": {**response, "previous_response_id": before},
        "timing": stored.timing if run is None else run.timing(),
    }
