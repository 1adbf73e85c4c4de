"""Ids of answers. Where a server has several HTTP workers, an id says which of them makes it: its
last byte is the worker's number, and at least 120 bits before that are random.

Rule: an id proves nothing. Its number only says who is asked first, and whoever is asked looks for
the whole id.
"""

from __future__ import annotations

import re
import secrets

MAX_WORKERS = 256
"""How many numbers there are: those of one byte."""

_ANSWER_ID = re.compile(r"[a-z]+[_-](?:[0-9a-f]{32}|[0-9a-f]{48})")
_NUMBER_DIGITS = 2


def new_answer_id(prefix: str, num_digits: int, *, worker: int | None) -> str:
    """A new id of so many hexadecimal digits. worker: the number of the HTTP worker that makes the
    answer; None if the server has but one, and all digits are random."""
    digits = secrets.token_hex(num_digits // 2)
    if worker is not None:
        digits = f"{digits[:-_NUMBER_DIGITS]}{worker:02x}"
    return prefix + digits


def named_worker(identifier: str) -> int | None:
    """The number in the id of an answer; None for what is no such id."""
    if _ANSWER_ID.fullmatch(identifier) is None:
        return None
    return int(identifier[-_NUMBER_DIGITS:], 16)
