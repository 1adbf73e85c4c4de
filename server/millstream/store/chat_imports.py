"""Rows of a chat that comes whole, with responses that have ended.

The rows are made before the writer is asked, and are written in three statements: everybody's
answers wait for the writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert

from millstream.store.chat_rows import chat_row
from millstream.store.chat_texts import first_words, searched_items
from millstream.store.item_rows import item_rows, size_of_items
from millstream.store.json_text import to_key, to_text
from millstream.store.records import ChatTurn, StoredChat
from millstream.store.response_rows import response_row
from millstream.store.tables import chats, items, responses


@dataclass(frozen=True, slots=True)
class ChatRows:
    """What is written of one chat."""

    chat: dict[str, Any]
    responses: list[dict[str, Any]]
    items: list[dict[str, Any]]

    def write(self, connection: Connection) -> None:
        connection.execute(chats.insert(), self.chat)
        for table, rows in ((responses, self.responses), (items, self.items)):
            if rows:
                connection.execute(insert(table), rows)


def rows_of_chat(chat: StoredChat, turns: Sequence[ChatTurn], *, server: str, now: int) -> ChatRows:
    """The rows of a new chat. turns: in the order in which they were begun; each follows one before
    it, or none."""
    words = (first_words(turn.inputs) for turn in turns)
    row = chat_row(chat, now=now) | {
        "leaf": None if chat.leaf is None else to_key(chat.leaf),
        "first_words": next(filter(None, words), None),
    }
    found = ChatRows(row, [], [])
    for number, turn in enumerate(turns, 1):
        own: list[dict[str, Any]] = []
        for given, direction in ((turn.inputs, "input"), (turn.outputs, "output")):
            own += item_rows(
                given,
                owner=chat.owner,
                response_id=to_key(turn.response.id),
                direction=direction,
            )
        found.items.extend(own)
        response = response_row(turn.response, size_of_items(own), server=server, now=now)
        found.responses.append(response | _place(chat, turn, number))
    return found


def _place(chat: StoredChat, turn: ChatTurn, number: int) -> dict[str, Any]:
    """The columns by which a response is in its chat, and those that it has at its end."""
    timing = turn.response.timing
    return {
        "chat_id": to_key(chat.id),
        "chat_number": number,
        "chat_question": to_key(turn.inputs[0].id) if turn.inputs else None,
        "said": f"{searched_items(turn.inputs)}\n{searched_items(turn.outputs)}",
        "timing": None if timing is None else to_text(timing),
    }
