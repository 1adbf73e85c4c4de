"""Longer conversations: several tasks in a row, each answered as if it stood alone."""

from __future__ import annotations

from .base import Dialogue, Message, Source, assistant, user
from .calendar import calendar
from .counting import counting
from .facts import facts
from .memory import name_turns
from .repeating import repeating
from .smalltalk import greeting
from .sums import sums
from .tools import tool_call
from .unknown import unknown

_TASKS = (counting, repeating, greeting, sums, calendar, facts, unknown, unknown)


def _tasks(src: Source, most: int) -> list[Message]:
    chosen = [src.pick(_TASKS)(src) for _ in range(src.rng.randint(1, most))]
    return [message for dialogue in chosen for message in dialogue.messages]


def series(src: Source) -> Dialogue:
    """One to three tasks and then another, which may need a tool."""
    before = _tasks(src, 3 if src.chance(0.3) else 1)
    last = tool_call(src) if src.chance(0.2) else src.pick(_TASKS)(src)
    return Dialogue("series", before + last.messages, last.tools)


def name_after_tasks(src: Source) -> Dialogue:
    """A name is told, then come other things, then the name is asked for."""
    told, asked = name_turns(src)
    messages = [user(told[0]), assistant(told[1]), *_tasks(src, 2), user(asked[0])]
    return Dialogue("memory", [*messages, assistant(asked[1])])
