"""The histories of all visits, in a store, for callers on any event loop.

Rule: what was said and answered comes into the history together, when the answer has ended,
however it ended.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from millstream.api.sessions.cookies import SessionCookies, owner_of_session
from millstream.embedded.background import Background
from millstream.server_store import kept_store
from millstream.settings import Settings
from millstream.store.records import StoredConversation, StoredItem
from millstream.store.store import Store

T = TypeVar("T")

_COOKIE = "millstream_chat"


@dataclass(frozen=True, slots=True)
class Said:
    """A message. role: user or assistant."""

    role: str
    text: str
    id: str

    @classmethod
    def new(cls, role: str, text: str, *, id: str | None = None) -> Said:
        return cls(role, text, id or f"msg_{secrets.token_hex(24)}")


class Histories:
    """Opens the store when it is made. Raises StartupError if that cannot be."""

    def __init__(self, settings: Settings) -> None:
        self._background = Background()
        stack = AsyncExitStack()
        self.close = weakref.finalize(self, self._background.close, stack.aclose)
        try:
            self._store, secret = self._background.submit(_open, stack, settings).result()
        except BaseException:
            self.close()
            raise
        self.cookies = SessionCookies(secret, days=settings.session_days, name=_COOKIE)

    async def read(self, key: str) -> tuple[list[Said], dict[str, str]]:
        """What was said in a visit, and what else is known of it."""
        return await self._run(lambda: self._read(key))

    async def add(self, key: str, said: list[Said], *, instead_of: Said | None = None) -> None:
        """Adds what was said. instead_of: what it replaces."""
        await self._run(lambda: self._add(key, said, instead_of))

    async def set_facts(self, key: str, facts: dict[str, str]) -> None:
        """Replaces what else is known of a visit."""
        await self._run(lambda: self._set_facts(key, facts))

    async def clear(self, key: str) -> None:
        """Forgets what was said, and keeps what else is known."""
        await self._run(lambda: self._clear(key))

    async def _run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await asyncio.wrap_future(self._background.submit(function))

    async def _read(self, key: str) -> tuple[list[Said], dict[str, str]]:
        name, owner = _names(key)
        conversation = await self._store.conversation(name, owner=owner)
        if conversation is None:
            return [], {}
        items = await self._store.all_conversation_items(name, owner=owner) or []
        return [_said(item) for item in items], conversation.metadata

    async def _add(self, key: str, said: list[Said], instead_of: Said | None) -> None:
        name, owner = _names(key)
        items = [StoredItem(id=each.id, data=_item(each)) for each in said]
        if instead_of is not None:
            await self._store.delete_item(name, instead_of.id, owner=owner)
        if not await self._store.add_items(name, owner=owner, items=items):
            await self._create(key, {}, items)

    async def _set_facts(self, key: str, facts: dict[str, str]) -> None:
        name, owner = _names(key)
        if await self._store.update_conversation(name, owner=owner, metadata=facts) is None:
            await self._create(key, facts, [])

    async def _clear(self, key: str) -> None:
        name, owner = _names(key)
        conversation = await self._store.conversation(name, owner=owner)
        if conversation is not None:
            await self._store.delete_conversation(name, owner=owner)
            if conversation.metadata:
                await self._create(key, conversation.metadata, [])

    async def _create(self, key: str, facts: dict[str, str], items: list[StoredItem]) -> None:
        name, owner = _names(key)
        made = StoredConversation(id=name, owner=owner, created=int(time.time()), metadata=facts)
        await self._store.create_conversation(made, items)


async def _open(stack: AsyncExitStack, settings: Settings) -> tuple[Store, bytes]:
    store = await stack.enter_async_context(kept_store(settings))
    assert store is not None, "refused before"
    return store, await store.secret("sessions")


def _names(key: str) -> tuple[str, str]:
    """The conversation of a visit, and its owner."""
    owner = owner_of_session(key)
    return f"conv_{sha256(owner.encode()).hexdigest()[:48]}", owner


def _item(said: Said) -> dict[str, Any]:
    """A message as the Responses API has it."""
    part: dict[str, Any] = {"type": "input_text", "text": said.text}
    if said.role == "assistant":
        part = {"type": "output_text", "text": said.text, "annotations": []}
    return {
        "id": said.id,
        "type": "message",
        "role": said.role,
        "status": "completed",
        "content": [part],
    }


def _said(item: StoredItem) -> Said:
    return Said(item.data["role"], item.data["content"][0]["text"], item.id)
