"""The file of --api-keys-file: keys, what they are called, and what they may ask for. TOML.

    [[keys]]
    label = "team-a"
    key = "sk-..."                  # or sha256 = "9c56...", the digest of the key in hexadecimal
    requests_per_minute = 60
    tokens_per_minute = 100_000
    max_concurrent_requests = 4
    max_output_tokens = 2_000

Rules: labels and keys are there once; a limit that is not given is none; errors name a place in the
file, and never have anything of a key.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from millstream.errors import StartupError
from millstream.quotas.limits import KeyLimits
from millstream.setting_types import ApiKey, Count

_Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]

T = TypeVar("T")

_FLAG = "--api-keys-file"


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One key of the file. digest: its SHA-256."""

    digest: bytes
    label: str
    limits: KeyLimits


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    label: _Label
    key: ApiKey | None = None
    sha256: _Digest | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_concurrent_requests: Count | None = None
    max_output_tokens: Count | None = None

    def rule(self) -> KeyRule:
        digest = bytes.fromhex(self.sha256) if self.sha256 is not None else b""
        if self.key is not None:
            digest = sha256(self.key.get_secret_value().encode()).digest()
        limits = KeyLimits(**self.model_dump(exclude={"label", "key", "sha256"}))
        return KeyRule(digest, self.label, limits)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keys: Annotated[list[_Entry], Field(min_length=1)]


def read_keys_file(path: Path) -> list[KeyRule]:
    """The keys in a file, at least one. Raises StartupError that says what is wrong with it."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartupError(f"{_FLAG}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StartupError(f"{_FLAG}: {path} is no UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        # Some of its messages quote what they have found.
        place = re.search(r"\(at .*\)$", str(error))
        where = f" {place[0]}" if place else ""
        raise StartupError(f"{_FLAG}: {path} is no valid TOML{where}") from None
    try:
        entries = _File.model_validate(given).keys
    except ValidationError as error:
        raise StartupError(f"{_FLAG}: {path}: {_first(error)}") from None
    for number, entry in enumerate(entries):
        if (entry.key is None) == (entry.sha256 is None):
            raise StartupError(f"{_FLAG}: {path}: keys[{number}]: give either key or sha256")
    rules = [entry.rule() for entry in entries]
    if label := _repeated([rule.label for rule in rules]):
        raise StartupError(f"{_FLAG}: {path}: two keys are called {label}")
    if digest := _repeated([rule.digest for rule in rules]):
        both = " and ".join(rule.label for rule in rules if rule.digest == digest)
        raise StartupError(f"{_FLAG}: {path}: {both} have the same key")
    return rules


def _first(error: ValidationError) -> str:
    """What is wrong first, and where."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return f"{where.removeprefix('.')}: {first['msg']}"


def _repeated(values: list[T]) -> T | None:
    return next((value for value, times in Counter(values).items() if times > 1), None)
