"""The tables, for SQLite and PostgreSQL. `migrations/` makes them; a test compares.

An item row belongs to a response (`direction` says on which side), to a conversation, or to both.
Its key gives the order. `used` is the second of the last use, `size` about the bytes that a
thing takes with all that belongs to it; both are for retention. Responses of a chat are a tree by
`previous_id`, in the order of `chat_number`; the size of a chat is without them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    literal_column,
    or_,
)

from millstream.store.records import RUNNING

metadata = MetaData()

# SQLite counts up only what is declared INTEGER PRIMARY KEY.
Key = BigInteger().with_variant(Integer, "sqlite")

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("locked_by", Text),  # the response that is being made in it
    Column("used", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("conversations_by_use", "used", "size"),
)

chats = Table(
    "chats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),  # microseconds: when something was last said
    Column("title", Text),
    Column("searched_title", Text),
    Column("first_words", Text),
    Column("settings", Text, nullable=False),
    Column("leaf", Text),  # the response where the current branch ends
    Column("used", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("chats_by_owner", "owner", "changed", "id"),
    Index("chats_by_use", "used", "size"),
)

responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("previous_id", Text),
    Column("conversation_id", Text),
    Column("is_resumable", Boolean, nullable=False),
    Column("resource", Text, nullable=False),
    Column("server", Text, nullable=False),  # the lease of the server that makes it
    Column("used", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("chat_id", Text),
    Column("chat_number", BigInteger),
    Column("chat_question", Text),  # the first item of its input, which its other versions share
    Column("said", Text),  # the words of a chat, as they are searched
    Column("timing", Text),
    Index("responses_by_use", "used", "size"),
    Index("responses_by_status", "status", "server"),
    Index("responses_by_conversation", "conversation_id"),
    Index("responses_by_chat", "chat_id", "chat_number"),
)

items = Table(
    "items",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("response_id", Text),
    Column("direction", Text),  # "input" or "output"
    Column("conversation_id", Text),
    Column("data", Text, nullable=False),
    Index("items_by_response", "response_id", "direction", "key"),
    Index("items_by_id", "id"),
    Index("items_by_conversation", "conversation_id", "key"),
    sqlite_autoincrement=True,
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("response_id", Text, primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("frames", LargeBinary, nullable=False),  # compressed by zlib
)

is_running = or_(*(responses.c.status == literal_column(f"'{status}'") for status in RUNNING))
"""The condition of responses that are not finished. IN would be spelled anew at each execution,
which many rows at once do not allow."""
