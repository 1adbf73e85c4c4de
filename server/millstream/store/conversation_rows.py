"""Rows of conversations, with their items, and the lock of the response that is made in one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    bindparam,
    func,
    null,
    or_,
    select,
    update,
)

from millstream.errors import ConversationLocked, NotFound
from millstream.store.item_rows import all_items, insert_items
from millstream.store.json_text import from_text, to_key, to_text
from millstream.store.records import StoredConversation, StoredItem
from millstream.store.tables import conversations, events, items, responses

_ROW_BYTES = 300

_OF_ID = update(conversations).where(conversations.c.id == bindparam("b_id"))
_LOCK = _OF_ID.where(
    conversations.c.owner == bindparam("b_owner"), conversations.c.locked_by.is_(None)
).values(locked_by=bindparam("b_holder"), used=bindparam("b_now"))
_UNLOCK = _OF_ID.where(conversations.c.locked_by == bindparam("b_holder")).values(locked_by=null())
_USE = _OF_ID.values(
    used=bindparam("b_now"), size=conversations.c.size + bindparam("b_more_bytes", type_=BigInteger)
)


def check_num_items(connection: Connection, conversation_id: str, *, expected: int) -> None:
    """Raises ConversationLocked for a conversation that has more or fewer items than that."""
    count = select(func.count()).where(items.c.conversation_id == to_key(conversation_id))
    if connection.execute(count).scalar_one() != expected:
        raise ConversationLocked(
            "something was said in this conversation meanwhile; send the request again"
        )


def insert_conversation(
    connection: Connection,
    conversation: StoredConversation,
    given: Sequence[StoredItem],
    *,
    now: int,
) -> None:
    """Writes it, and what it begins with."""
    key = to_key(conversation.id)
    metadata = to_text(conversation.metadata)
    size = insert_items(connection, given, owner=conversation.owner, conversation_id=key)
    row = {
        "id": key,
        "owner": conversation.owner,
        "created": conversation.created,
        "metadata": metadata,
        "locked_by": None,
        "used": now,
        "size": size + len(metadata) + _ROW_BYTES,
    }
    connection.execute(conversations.insert(), row)


def read_conversation(
    connection: Connection, conversation_id: str, *, owner: str
) -> tuple[StoredConversation, int] | None:
    """The conversation, and when it was last used."""
    row = connection.execute(
        select(conversations).where(owned_conversation(conversation_id, owner))
    ).first()
    if row is None:
        return None
    conversation = StoredConversation(
        id=row.id, owner=row.owner, created=row.created, metadata=from_text(row.metadata)
    )
    return conversation, row.used


def update_metadata(
    connection: Connection, conversation_id: str, *, owner: str, metadata: dict[str, str], now: int
) -> StoredConversation | None:
    """The conversation as it is then."""
    connection.execute(
        update(conversations)
        .where(owned_conversation(conversation_id, owner))
        .values(metadata=to_text(metadata), used=now)
    )
    found = read_conversation(connection, conversation_id, owner=owner)
    return None if found is None else found[0]


def delete_conversation(connection: Connection, conversation_id: str, *, owner: str) -> bool:
    """Whether there was one. Its items and the responses made in it go with it."""
    key = to_key(conversation_id)
    mine = owned_conversation(conversation_id, owner)
    if connection.execute(conversations.delete().where(mine)).rowcount == 0:
        return False
    made = select(responses.c.id).where(responses.c.conversation_id == key)
    connection.execute(events.delete().where(events.c.response_id.in_(made)))
    connection.execute(
        items.delete().where(or_(items.c.conversation_id == key, items.c.response_id.in_(made)))
    )
    connection.execute(responses.delete().where(responses.c.conversation_id == key))
    return True


def add_items(
    connection: Connection,
    conversation_id: str,
    *,
    owner: str,
    given: Sequence[StoredItem],
    now: int,
) -> bool:
    """Whether there is such a conversation."""
    mine = owned_conversation(conversation_id, owner)
    if connection.execute(update(conversations).where(mine).values(used=now)).rowcount == 0:
        return False
    size = insert_items(connection, given, owner=owner, conversation_id=to_key(conversation_id))
    connection.execute(update(conversations).where(mine).values(size=conversations.c.size + size))
    return True


def delete_item(connection: Connection, conversation_id: str, item_id: str, *, owner: str) -> bool:
    """Whether there was one. It is gone from the response that made it, too."""
    mine = in_conversation(conversation_id, owner) & (items.c.id == to_key(item_id))
    return connection.execute(items.delete().where(mine)).rowcount > 0


def items_before(
    connection: Connection, conversation_id: str, *, response_id: str
) -> list[StoredItem]:
    """What a conversation held when a response was made in it. Both are given as keys."""
    first = select(func.min(items.c.key)).where(items.c.response_id == response_id)
    key = connection.execute(first).scalar()
    here = [items.c.conversation_id == conversation_id]
    return all_items(connection, *here, *([] if key is None else [items.c.key < key]))


def lock(
    connection: Connection, conversation_id: str, *, owner: str, holder: str, now: int
) -> None:
    """Takes it for a response. Raises ConversationLocked, or NotFound."""
    values = {"b_id": to_key(conversation_id), "b_owner": owner, "b_holder": holder, "b_now": now}
    taken = connection.execute(_LOCK, values)
    if taken.rowcount == 1:
        return
    mine = owned_conversation(conversation_id, owner)
    if connection.execute(select(conversations.c.id).where(mine)).first() is None:
        raise NotFound(f"there is no conversation {conversation_id!r}", param="conversation")
    raise ConversationLocked(
        "another response is being made in this conversation; wait until it is finished",
        param="conversation",
    )


def unlock(connection: Connection, conversation_key: str, *, holder: str) -> None:
    """Gives it back, if the response holds it."""
    connection.execute(_UNLOCK, {"b_id": conversation_key, "b_holder": holder})


def use(connection: Connection, conversation_key: str, *, more_bytes: int, now: int) -> None:
    """Notes that a conversation was used, and has grown."""
    values = {"b_id": conversation_key, "b_more_bytes": more_bytes, "b_now": now}
    connection.execute(_USE, values)


def owned_conversation(conversation_id: str, owner: str) -> ColumnElement[bool]:
    """The condition by which a conversation is found."""
    return (conversations.c.id == to_key(conversation_id)) & (conversations.c.owner == owner)


def in_conversation(conversation_id: str, owner: str) -> ColumnElement[bool]:
    """The condition of its items."""
    return (items.c.conversation_id == to_key(conversation_id)) & (items.c.owner == owner)


def in_response(response_id: str, owner: str, direction: str) -> ColumnElement[bool]:
    """The condition of a response's items on one side."""
    mine = (items.c.response_id == to_key(response_id)) & (items.c.owner == owner)
    return mine & (items.c.direction == direction)
