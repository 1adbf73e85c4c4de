"""Completions whose server died: their readers are told how they ended, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.api.openai.responses.recovery import recover
from millstream.store.address import StoreAddress
from millstream.store.records import EventBatch, StoredResponse
from millstream.store.store import Store

_CHUNK = b'id: 0\ndata: {"id":"chatcmpl-1","choices":[]}\n\n'
_DONE = b"id: 1\ndata: [DONE]\n\n"
_ERROR = b'id: 1\ndata: {"error": {"code": "engine_restarted"}}\n\n'


@pytest.mark.parametrize(
    ("frames", "status", "num_events"),
    [
        ([], "failed", 1),
        ([_CHUNK], "failed", 2),
        ([_CHUNK, _DONE], "completed", 2),
        ([_CHUNK, _ERROR], "failed", 2),
    ],
)
async def test_a_completion_has_one_ending(
    frames: list[bytes],
    status: str,
    num_events: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = StoreAddress.parse(str(tmp_path / "store.db"))
    assert address is not None
    store = await Store.open(address)
    try:
        row = StoredResponse(
            id="chatcmpl-1",
            owner="",
            kind="chat",
            created=1,
            status="in_progress",
            previous_id=None,
            conversation_id=None,
            is_resumable=True,
            resource={},
        )
        await store.begin(row, [])
        if frames:
            batch = EventBatch(first=0, last=len(frames) - 1, frames=b"".join(frames))
            await store.log(row.id, batch)

        async def abandoned() -> list[StoredResponse]:
            return [row]

        monkeypatch.setattr(store, "abandoned", abandoned)
        assert await recover(store) == 1
        ended = await store.response(row.id, owner="")
        assert ended is not None
        assert ended.status == status
        kept = b"".join(
            batch.frames for batch in await store.events(row.id, after=-1, limit_bytes=10**6)
        )
        assert kept.startswith(b"".join(frames))
        assert kept.count(b"id: ") == num_events
        if num_events > len(frames):
            assert b"server_restarted" in kept
    finally:
        await store.close()
