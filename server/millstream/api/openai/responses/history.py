"""What a response builds on: earlier responses or a conversation, from the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.api.openai.responses.recent import RecentResponses
from millstream.api.wire.error_bodies import shown
from millstream.errors import InvalidRequest, NotFound
from millstream.intake.responses.request import ResponseRequest
from millstream.store.records import RUNNING
from millstream.store.store import Store

_NEEDS_STORE = frozenset({"background", "conversation", "previous_response_id", "store"})


class History:
    """Reads it. store: None on a server that keeps nothing."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    def store_for(
        self, request: ResponseRequest, *, is_replayed: bool, recent: RecentResponses | None = None
    ) -> Store | None:
        """The store that is to keep the response; None if it is not to be kept.

        Raises InvalidRequest for what cannot be had without keeping it.
        """
        needs_store = _NEEDS_STORE if recent is None else _NEEDS_STORE - {"previous_response_id"}
        is_of_recent = recent is not None and request.previous_response_id in recent
        if self._store is None:
            for name in sorted(needs_store):
                if getattr(request, name):
                    raise InvalidRequest(
                        f"{name}: this server keeps nothing (--store off)",
                        param=name,
                        code="store_off",
                    )
            return None
        if request.store and is_of_recent:
            raise InvalidRequest(
                "store: what it goes on from is not kept; leave store out",
                param="store",
                code="previous_response_not_stored",
            )
        if request.store is not False and not is_of_recent:
            return self._store
        if is_replayed:
            raise InvalidRequest(
                "store: events can be read again only if they are kept; leave store out",
                param="store",
            )
        if request.conversation_id is not None:
            raise InvalidRequest(
                "store: what is said in a conversation is kept; leave store out", param="store"
            )
        return None

    async def before(
        self, request: ResponseRequest, *, owner: str, recent: RecentResponses | None = None
    ) -> list[dict[str, Any]]:
        """The items that the request's own follow. Raises NotFound, StoreFailed, and InvalidRequest
        for a response that is still being made."""
        previous_id = request.previous_response_id
        if recent is not None and previous_id is not None and previous_id in recent:
            return recent.items(previous_id)
        if self._store is None:
            if previous_id is not None:
                raise not_found("previous response", previous_id, param="previous_response_id")
            return []
        if (conversation_id := request.conversation_id) is not None:
            found = await self._store.all_conversation_items(conversation_id, owner=owner)
            if found is None:
                raise not_found("conversation", conversation_id, param="conversation")
            return [item.data for item in found]
        if previous_id is None:
            return []
        previous = await self._store.response(previous_id, owner=owner)
        if previous is not None and previous.status in RUNNING:
            raise InvalidRequest(
                f"previous_response_id: {shown(previous_id)} is still being made",
                param="previous_response_id",
                code="response_in_progress",
            )
        found = await self._store.context(previous_id, owner=owner) if previous else None
        if found is None:
            raise not_found("previous response", previous_id, param="previous_response_id")
        return [item.data for item in found]

    async def resolved(
        self, items: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], *, owner: str
    ) -> list[dict[str, Any]]:
        """The items with each reference replaced by what it refers to. Raises NotFound."""
        wanted = [item["id"] for item in items if item["type"] == "item_reference"]
        if not wanted:
            return list(items)
        known = {item["id"]: item for item in [*before, *items] if item["type"] != "item_reference"}
        missing = [identifier for identifier in wanted if identifier not in known]
        if missing and self._store is not None:
            found = await self._store.items(missing, owner=owner)
            known |= {item.id: item.data for item in found}
        for place, item in enumerate(items):
            if item["type"] == "item_reference" and item["id"] not in known:
                raise not_found("item", item["id"], param=f"input[{place}].id")
        return [known[i["id"]] if i["type"] == "item_reference" else i for i in items]


def not_found(what: str, identifier: str, *, param: str) -> NotFound:
    """What is said of an id that is unknown, or somebody else's."""
    code = f"{what.replace(' ', '_')}_not_found"
    return NotFound(f"there is no {what} {shown(identifier)}", param=param, code=code)
