"""Objects of the API as text in a column."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_LONGEST_ID = 200


def to_text(data: Any) -> str:
    """JSON that any database takes: control characters are escaped, and lone surrogates."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=(",", ":"))
    return text


def from_text(text: str) -> Any:
    """The object again."""
    return json.loads(text)


def to_key(identifier: str) -> str:
    """An id as a column has it. What no database would take, or is long, is known by its hash."""
    if len(identifier) <= _LONGEST_ID and identifier.isascii() and identifier.isprintable():
        return identifier
    digest = hashlib.sha256(identifier.encode(errors="surrogatepass")).hexdigest()
    return f"sha256:{digest}"
