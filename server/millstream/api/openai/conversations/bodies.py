"""The bodies that the Conversations API takes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from millstream.intake.known_fields import checked_body
from millstream.intake.requests.chat import Metadata
from millstream.intake.responses.items import Item, read_items
from millstream.intake.strict_body import Body

MAX_ITEMS = 20
"""Items that are added at once; OpenAI's limit."""


class NewConversation(Body):
    items: list[Any] | None = Field(None, max_length=MAX_ITEMS)
    metadata: Metadata | None = None

    @property
    def stored_items(self) -> list[Item]:
        """The items, checked, each with an id."""
        return read_items(self.items or [], path="items")


class NewItems(Body):
    items: list[Any] = Field(min_length=1, max_length=MAX_ITEMS)

    @property
    def stored_items(self) -> list[Item]:
        """The items, checked, each with an id."""
        return read_items(self.items, path="items")


class NewMetadata(Body):
    metadata: Metadata


def parse_conversation(body: dict[str, Any]) -> NewConversation:
    """Raises InvalidRequest that names the field."""
    return checked_body(NewConversation, body)


def parse_items(body: dict[str, Any]) -> NewItems:
    """Raises InvalidRequest that names the field."""
    return checked_body(NewItems, body)


def parse_metadata(body: dict[str, Any]) -> NewMetadata:
    """Raises InvalidRequest that names the field."""
    return checked_body(NewMetadata, body)
