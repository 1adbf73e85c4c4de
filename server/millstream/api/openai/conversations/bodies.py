"""The bodies that the Conversations API takes."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import Field, ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.requests.chat import Metadata
from millstream.intake.responses.items import Item, read_items
from millstream.intake.strict_body import Body, invalid

MAX_ITEMS = 20
"""Items that are added at once; OpenAI's limit."""

B = TypeVar("B", bound=Body)


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
    return _parse(NewConversation, body)


def parse_items(body: dict[str, Any]) -> NewItems:
    """Raises InvalidRequest that names the field."""
    return _parse(NewItems, body)


def parse_metadata(body: dict[str, Any]) -> NewMetadata:
    """Raises InvalidRequest that names the field."""
    return _parse(NewMetadata, body)


def _parse(kind: type[B], body: dict[str, Any]) -> B:
    for name in body:
        if name not in kind.model_fields:
            raise InvalidRequest(
                f"{name} is not a field of this API", param=name, code="unknown_parameter"
            )
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
