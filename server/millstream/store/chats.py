"""The methods of the store that are about chats."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from millstream.store import chat_rows as rows
from millstream.store.chat_imports import rows_of_chat
from millstream.store.chat_tree import ChatTree
from millstream.store.connected import now
from millstream.store.conversation_rows import in_response
from millstream.store.conversations import StoredConversations
from millstream.store.item_rows import all_items
from millstream.store.json_text import to_key
from millstream.store.records import ChatTurn, StoredChat
from millstream.store.response_rows import read_response
from millstream.store.tables import chats


@dataclass(frozen=True, slots=True)
class ChatBranch:
    """A chat, all its responses, and the turns of its current branch."""

    chat: StoredChat
    tree: ChatTree
    turns: Sequence[ChatTurn]

    @classmethod
    def empty(cls, chat: StoredChat) -> ChatBranch:
        """The branch of a chat in which nothing was said."""
        return cls(chat, ChatTree([]), [])


class StoredChats(StoredConversations):
    """Each method gives None or False for a chat that is not there, or another owner's. Responses
    enter a chat by `Store.begin()`."""

    async def create_chat(self, chat: StoredChat) -> None:
        """Writes a new one."""
        await self._writer.submit(lambda c: rows.insert_chat(c, chat, now=now()))

    async def import_chat(self, chat: StoredChat, turns: Sequence[ChatTurn]) -> None:
        """Writes a new one with its responses, which have ended, at once or not at all.

        turns: in the order in which they were begun; each follows one before it, or none.
        """
        server = self._opened.lease.name
        made = await asyncio.to_thread(rows_of_chat, chat, turns, server=server, now=now())
        await self._writer.submit(made.write)

    async def newest_chat_or(self, chat: StoredChat) -> StoredChat:
        """The chat in which an owner last said something; this one, which is written, if none."""

        def read_or_make(connection: Connection) -> StoredChat:
            found = rows.newest_chat(connection, owner=chat.owner)
            if found is None:
                rows.insert_chat(connection, chat, now=now())
            return found or chat

        return await self._writer.submit(read_or_make)

    async def chat(self, chat_id: str, *, owner: str) -> StoredChat | None:
        """The chat without its responses."""
        found = await self._reader.read(lambda c: rows.read_chat(c, chat_id, owner=owner))
        if found is None:
            return None
        self._keeping.note_use(chats, [to_key(chat_id)], last=found[1])
        return found[0]

    async def chats(
        self, *, owner: str, after: str | None, limit: int, words: Sequence[str] = ()
    ) -> tuple[list[StoredChat], bool]:
        """Chats of an owner in whose title or texts all these words are, the newest first; and
        whether there are more. Raises InvalidRequest if `after` is none of them."""
        return await self._reader.read(
            lambda c: rows.page_of_chats(c, owner=owner, after=after, limit=limit, words=words)
        )

    async def update_chat(
        self, chat_id: str, *, owner: str, changes: Mapping[str, Any]
    ) -> StoredChat | None:
        """Changes its title, settings or leaf. Returns the chat as it is then."""
        return await self._writer.submit(
            lambda c: rows.update_chat(c, chat_id, owner=owner, changes=changes, now=now())
        )

    async def clear_chat(self, chat_id: str, *, owner: str) -> StoredChat | None:
        """Deletes what was said in it. Returns the chat as it is then."""
        cleared = await self._writer.submit(
            lambda c: rows.clear_chat(c, chat_id, owner=owner, now=now())
        )
        self._keeping.note_deletion(cleared is not None)
        return cleared

    async def delete_chat(self, chat_id: str, *, owner: str) -> bool:
        """Deletes it with all its responses."""
        is_deleted = await self._writer.submit(lambda c: rows.delete_chat(c, chat_id, owner=owner))
        return self._keeping.note_deletion(is_deleted)

    async def chat_tree(self, chat_id: str) -> ChatTree:
        """The responses of a chat that was found."""
        return await self._reader.read(lambda c: rows.read_tree(c, chat_id))

    async def chat_turn(self, response_id: str, *, owner: str) -> ChatTurn | None:
        """One response."""
        return await self._reader.read(lambda c: _turn(c, response_id, owner))

    async def chat_branch(
        self, chat_id: str, *, owner: str, is_whole: bool = False
    ) -> ChatBranch | None:
        """All of a chat that its owner sees at once, as it is at one moment.

        is_whole: with the turns of all its responses, in the order in which they were begun.
        """

        def read(connection: Connection) -> tuple[ChatBranch, int] | None:
            found = rows.read_chat(connection, chat_id, owner=owner)
            if found is None:
                return None
            tree = rows.read_tree(connection, chat_id)
            nodes = tree if is_whole else tree.branch(found[0].leaf)
            turns = [_turn(connection, node.id, owner) for node in nodes]
            return ChatBranch(found[0], tree, [turn for turn in turns if turn]), found[1]

        branch = await self._reader.read(read)
        if branch is None:
            return None
        self._keeping.note_use(chats, [to_key(chat_id)], last=branch[1])
        return branch[0]


def _turn(connection: Connection, response_id: str, owner: str) -> ChatTurn | None:
    found = read_response(connection, response_id, owner=owner)
    if found is None:
        return None
    inputs, outputs = (
        all_items(connection, in_response(response_id, owner, direction))
        for direction in ("input", "output")
    )
    return ChatTurn(found[0], inputs, outputs)
