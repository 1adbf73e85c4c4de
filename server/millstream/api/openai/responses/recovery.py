"""What becomes of answers whose server is gone: they have failed, and what was said is kept.

Run when the server starts and now and then after that, since several servers may share a store.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from millstream.answering.event_log import split_frames
from millstream.api.openai.responses.frames import Frames
from millstream.api.openai.responses.resource import with_output
from millstream.api.wire.error_bodies import error_event
from millstream.errors import MillstreamError
from millstream.store.records import EventBatch, StoredItem, StoredResponse
from millstream.store.store import Store

log = logging.getLogger(__name__)

_UPKEEP_SECONDS = 10.0
_READ_BYTES = 4 * 1024 * 1024
_DONE = b"data: [DONE]\n\n"
_RESTARTED = "the server was restarted while it made this answer"


async def keep_up(store: Store) -> None:
    """Recovers now and then. Does not end by itself."""
    while True:
        await asyncio.sleep(_UPKEEP_SECONDS)
        try:
            await recover(store)
        except MillstreamError as error:
            log.warning("abandoned answers could not be ended: %s", error.message)


async def recover(store: Store) -> int:
    """Ends all abandoned answers, and returns how many there were. Raises StoreFailed."""
    abandoned = await store.abandoned()
    for answer in abandoned:
        frames = await _all_frames(store, answer.id)
        if answer.kind == "response":
            await _end_response(store, answer, frames)
        else:
            await _end_chat(store, answer, frames)
    if abandoned:
        log.warning(
            "%d answers had not ended when their server did; they have failed", len(abandoned)
        )
    return len(abandoned)


async def _all_frames(store: Store, answer_id: str) -> list[bytes]:
    frames: list[bytes] = []
    while batches := await store.events(answer_id, after=len(frames) - 1, limit_bytes=_READ_BYTES):
        for batch in batches:
            assert batch.first == len(frames), "events are kept without a gap"
            frames += split_frames(batch.frames)
    return frames


async def _end_response(store: Store, answer: StoredResponse, frames: Sequence[bytes]) -> None:
    outputs = output_of(map(event_of, frames))
    resource = answer.resource | {
        "status": "failed",
        "error": {"code": "server_restarted", "message": _RESTARTED},
    }
    numbers = Frames()
    numbers.number = len(frames)
    shown = with_output(resource, outputs)
    terminal = numbers.of_object("response.failed", {"response": shown})
    await store.finish(
        answer.id,
        status="failed",
        resource=resource,
        outputs=[StoredItem(id=item["id"], data=item) for item in outputs],
        last_events=_last(terminal, len(frames)),
        keeps_events=answer.is_resumable,
    )


async def _end_chat(store: Store, answer: StoredResponse, frames: Sequence[bytes]) -> None:
    ending = ending_of(frames)
    error = error_event(MillstreamError(_RESTARTED, code="server_restarted"))
    last = _last(b"id: %d\n" % len(frames) + error, len(frames))
    await store.finish(
        answer.id,
        status=ending or "failed",
        resource=answer.resource,
        outputs=[],
        last_events=last if ending is None else None,
        keeps_events=answer.is_resumable,
    )


def ending_of(frames: Sequence[bytes]) -> str | None:
    """What became of a completion whose last event readers have; None if they have not."""
    if not frames:
        return None
    if frames[-1].endswith(_DONE):
        return "completed"
    return "failed" if "error" in event_of(frames[-1]) else None


def _last(frame: bytes, number: int) -> EventBatch:
    return EventBatch(first=number, last=number, frames=frame)


def event_of(frame: bytes) -> dict[str, Any]:
    """The data of an event."""
    event: dict[str, Any] = json.loads(frame.partition(b"data: ")[2])
    return event


def output_of(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items that these events, all there were, add up to. One that was open is incomplete."""
    items: list[dict[str, Any]] = []
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            items.append(event["item"])
        elif kind == "response.output_item.done":
            items[event["output_index"]] = event["item"]
        elif kind == "response.content_part.added":
            items[event["output_index"]]["content"].append(event["part"])
        elif kind in ("response.output_text.delta", "response.reasoning_text.delta"):
            part = items[event["output_index"]]["content"][event["content_index"]]
            part["text"] += event["delta"]
            if event.get("logprobs"):
                part["logprobs"] = [*part["logprobs"], *event["logprobs"]]
        elif kind == "response.function_call_arguments.delta":
            items[event["output_index"]]["arguments"] += event["delta"]
        elif kind == "response.custom_tool_call_input.delta":
            items[event["output_index"]]["input"] += event["delta"]
    if items and items[-1].get("status") == "in_progress":
        items[-1]["status"] = "incomplete"
    return items
