"""The words of a chat: as they are searched, and as a title of what has none. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from millstream.store.records import StoredItem

_TITLE_LENGTH = 80


def searched_text(text: str) -> str:
    """A text without what makes no difference to those who search, and without what no database
    takes."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\0", " ")
    return folded.encode(errors="ignore").decode()


def searched_items(items: Iterable[StoredItem]) -> str:
    """What the messages among these items say."""
    return searched_text("\n".join(text for item in items for text in _texts(item.data)))


def first_words(items: Iterable[StoredItem]) -> str | None:
    """The beginning of the first text of a user's, on one line."""
    for item in items:
        if item.data.get("role") != "user":
            continue
        words = " ".join(" ".join(_texts(item.data)).split())
        shown = "".join(letter for letter in words if letter.isprintable())
        if shown:
            whole = shown[:_TITLE_LENGTH]
            return whole if len(shown) <= _TITLE_LENGTH else whole.rstrip() + "…"
    return None


def _texts(item: dict[str, Any]) -> Iterator[str]:
    if item.get("type") != "message":
        return
    content = item.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]
