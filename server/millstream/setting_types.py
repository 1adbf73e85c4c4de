"""Types of the server's options: bounds, and lists that may be given in one text."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints
from pydantic_settings import NoDecode


def _split(given: Any) -> Any:
    """The parts of `a,b`, or of several such texts. The rest is left to be refused."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return given
    return tuple(part.strip() for text in texts for part in text.split(","))


def _check_key(key: SecretStr) -> SecretStr:
    # What a client can put into a header as it is; and an empty key would let everyone in.
    if not re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()):
        raise ValueError("a key must be one or more printable ASCII characters without blanks")
    return key


Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
ApiKey = Annotated[SecretStr, AfterValidator(_check_key)]
Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\sA-Z]+)$")]
Host = Annotated[
    str,
    StringConstraints(
        pattern=r"^((\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])$", to_lower=True
    ),
]
ApiKeys = Annotated[tuple[ApiKey, ...] | None, NoDecode, BeforeValidator(_split)]
Hosts = Annotated[tuple[Host, ...] | None, NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Origin, ...] | None, NoDecode, BeforeValidator(_split)]
