"""Things to store."""

from __future__ import annotations

from typing import Any

from millstream.store.records import EventBatch, StoredConversation, StoredItem, StoredResponse
from millstream.store.store import Store

OWNER = "a" * 64
STRANGER = "b" * 64


def response(identifier: str, **changes: Any) -> StoredResponse:
    """One that begins."""
    values: dict[str, Any] = {
        "owner": OWNER,
        "kind": "response",
        "created": 1_700_000_000,
        "status": "queued",
        "previous_id": None,
        "conversation_id": None,
        "is_resumable": True,
        "resource": {"id": identifier, "model": "demo"},
    }
    return StoredResponse(id=identifier, **(values | changes))


def conversation(identifier: str, owner: str = OWNER) -> StoredConversation:
    return StoredConversation(id=identifier, owner=owner, created=1, metadata={"topic": "rivers"})


def items(*texts: str) -> list[StoredItem]:
    """One for each text, of which its id is made."""
    return [
        StoredItem(id=f"item_{text}", data={"id": f"item_{text}", "text": text}) for text in texts
    ]


def texts(found: list[StoredItem] | None) -> list[str] | None:
    return None if found is None else [item.data["text"] for item in found]


def batch(first: int, last: int) -> EventBatch:
    frames = b"".join(b"data: %d\n\n" % number for number in range(first, last + 1))
    return EventBatch(first=first, last=last, frames=frames)


async def answered(store: Store, identifier: str, **changes: Any) -> None:
    """A response that is finished: it was told `<id> in`, and says `<id> out`."""
    await store.begin(response(identifier, **changes), items(f"{identifier} in"))
    await finished(store, identifier, outputs=items(f"{identifier} out"))


async def finished(store: Store, identifier: str, **changes: Any) -> None:
    """Finishes one that runs."""
    values: dict[str, Any] = {
        "status": "completed",
        "resource": {"id": identifier, "is_done": True},
        "outputs": [],
        "keeps_events": True,
    }
    await store.finish(identifier, **(values | changes))
