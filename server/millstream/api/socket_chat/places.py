"""The place of a message: nowhere but in itself, a conversation of the store, or a chat."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from millstream.api.chats.finding import last_said, new_chat
from millstream.api.openai.conversations.creation import new_conversation
from millstream.api.openai.responses.history import not_found
from millstream.api.socket_chat.client_frames import CHAT, NEW, SaidIn
from millstream.errors import InvalidRequest
from millstream.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPlace:
    """What a message's place makes of it.

    owner: whose the answer is. said_in: with the id of what begins with it. fields: of the
    response, which the message has no say in. settings: those that it may say otherwise. write:
    stores what begins with it.
    """

    owner: str
    fields: Mapping[str, Any]
    said_in: SaidIn | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[], Coroutine[Any, Any, None]] | None = None

    @property
    def chat_id(self) -> str | None:
        """The chat of which the answer is a part."""
        return self.said_in.id if self.said_in is not None and self.said_in.kind == CHAT else None

    @property
    def shown(self) -> dict[str, str]:
        """What the first frame of the answer says of it."""
        return {} if self.said_in is None else {self.said_in.kind: self.said_in.id}


class SocketPlaces:
    """Finds and begins them for one client. owners: those whose things it may name by their ids."""

    def __init__(self, store: Store | None, owners: Sequence[str]) -> None:
        self._store = store
        self._owners = owners

    async def find(self, said_in: SaidIn | None) -> SocketPlace:
        """The place. Raises NotFound for a chat, and InvalidRequest if nothing is kept."""
        owner = self._owners[0]
        if said_in is None:
            return SocketPlace(owner=owner, fields={"store": False})
        store = self._store
        if store is None:
            raise InvalidRequest(
                f"{said_in.kind}: this server keeps nothing (--store off)",
                param=said_in.kind,
                code="store_off",
            )
        if said_in.kind == CHAT:
            return await self._chat(store, said_in.id)
        write, identifier = None, said_in.id
        if identifier == NEW:
            conversation = new_conversation(owner)
            identifier = conversation.id
            write = partial(store.create_conversation, conversation, [])
        fields = {said_in.kind: identifier}
        return SocketPlace(
            owner=owner, said_in=SaidIn(said_in.kind, identifier), fields=fields, write=write
        )

    async def begun(self, said_in: SaidIn) -> SaidIn:
        """The place that all messages of a connection mean, which is there from now on. Raises as
        `find()` does, and NotFound for a conversation."""
        place = await self.find(said_in)
        assert place.said_in is not None, "asked for one"
        kind, identifier = place.said_in
        if place.write is not None:
            await place.write()
        elif kind != CHAT:
            assert self._store is not None, "or it would have been refused"
            if await self._store.conversation(identifier, owner=place.owner) is None:
                raise not_found(kind, identifier, param=kind)
        return place.said_in

    async def _chat(self, store: Store, identifier: str) -> SocketPlace:
        if identifier == NEW:
            chat = new_chat(self._owners[0])
            write = partial(store.create_chat, chat)
            parent = None
        else:
            write = None
            for owner in self._owners:
                if (found := await store.chat(identifier, owner=owner)) is not None:
                    chat, parent = found, await last_said(store, found)
                    break
            else:
                raise not_found(CHAT, identifier, param=CHAT)
        return SocketPlace(
            owner=chat.owner,
            said_in=SaidIn(CHAT, chat.id),
            fields={"previous_response_id": parent, "store": True},
            settings=chat.settings,
            write=write,
        )
