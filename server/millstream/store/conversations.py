"""The methods of the store that are about conversations."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.store import conversation_rows as rows
from millstream.store.connected import Connected, now
from millstream.store.conversation_rows import in_conversation
from millstream.store.item_rows import all_items, page_of_items
from millstream.store.json_text import to_key
from millstream.store.records import Page, StoredConversation, StoredItem
from millstream.store.tables import conversations, items


class StoredConversations(Connected):
    """Each method gives None or False for a conversation that is not there, or another owner's."""

    async def create_conversation(
        self, conversation: StoredConversation, items: Sequence[StoredItem]
    ) -> None:
        """Writes a new one, and what it begins with."""
        await self._writer.submit(
            lambda c: rows.insert_conversation(c, conversation, items, now=now())
        )

    async def conversation(self, conversation_id: str, *, owner: str) -> StoredConversation | None:
        """The conversation without its items."""
        found = await self._reader.read(
            lambda c: rows.read_conversation(c, conversation_id, owner=owner)
        )
        if found is None:
            return None
        self._keeping.note_use(conversations, [to_key(conversation_id)], last=found[1])
        return found[0]

    async def update_conversation(
        self, conversation_id: str, *, owner: str, metadata: dict[str, str]
    ) -> StoredConversation | None:
        """Replaces its metadata. Returns the conversation as it is then."""
        return await self._writer.submit(
            lambda c: rows.update_metadata(
                c, conversation_id, owner=owner, metadata=metadata, now=now()
            )
        )

    async def delete_conversation(self, conversation_id: str, *, owner: str) -> bool:
        """Deletes it with its items and the responses made in it."""
        is_deleted = await self._writer.submit(
            lambda c: rows.delete_conversation(c, conversation_id, owner=owner)
        )
        return self._keeping.note_deletion(is_deleted)

    async def add_items(
        self, conversation_id: str, *, owner: str, items: Sequence[StoredItem]
    ) -> bool:
        """Puts them at its end."""
        return await self._writer.submit(
            lambda c: rows.add_items(c, conversation_id, owner=owner, given=items, now=now())
        )

    async def conversation_items(
        self,
        conversation_id: str,
        *,
        owner: str,
        after: str | None,
        limit: int,
        is_descending: bool,
    ) -> Page | None:
        """A page of its items. Raises InvalidRequest if `after` is none of them."""
        if await self.conversation(conversation_id, owner=owner) is None:
            return None
        return await self._reader.read(
            lambda c: page_of_items(
                c,
                in_conversation(conversation_id, owner),
                after=after,
                limit=limit,
                is_descending=is_descending,
            )
        )

    async def all_conversation_items(
        self, conversation_id: str, *, owner: str
    ) -> list[StoredItem] | None:
        """All its items in order."""
        if await self.conversation(conversation_id, owner=owner) is None:
            return None
        return await self._reader.read(
            lambda c: all_items(c, in_conversation(conversation_id, owner))
        )

    async def conversation_item(
        self, conversation_id: str, item_id: str, *, owner: str
    ) -> StoredItem | None:
        """One of its items."""
        mine = in_conversation(conversation_id, owner) & (items.c.id == to_key(item_id))
        found = await self._reader.read(lambda c: all_items(c, mine))
        return found[0] if found else None

    async def delete_item(self, conversation_id: str, item_id: str, *, owner: str) -> bool:
        """Deletes one of its items, for the response that made it, too."""
        is_deleted = await self._writer.submit(
            lambda c: rows.delete_item(c, conversation_id, item_id, owner=owner)
        )
        return self._keeping.note_deletion(is_deleted)
