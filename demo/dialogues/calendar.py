"""Days of the week and months of the year: neighbours, numbers, lengths and lists."""

from __future__ import annotations

from .base import Dialogue, Source, chat, listed
from .counting import BACKWARDS

DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed(
    "January February March April May June July August September October November December"
)
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ORDINALS = listed(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
)

_AFTER = (
    "What {u} comes after {x}?",
    "Which {u} comes after {x}?",
    "What comes after {x}?",
    "Which {u} follows {x}?",
    "What is the {u} after {x}?",
    "What's the {u} after {x}?",
    "Tell me the {u} after {x}",
    "Name the {u} that comes after {x}",
    "What {u} is after {x}?",
)
_BEFORE = (
    "What {u} comes before {x}?",
    "Which {u} comes before {x}?",
    "What comes before {x}?",
    "What is the {u} before {x}?",
    "What's the {u} before {x}?",
    "Tell me the {u} before {x}",
    "Name the {u} that comes before {x}",
    "What {u} is before {x}?",
)
_TODAY = (
    ("If today is {x}, what day is tomorrow?", 1),
    ("Today is {x}. What day is tomorrow?", 1),
    ("If today is {x}, what day was yesterday?", -1),
    ("Today is {x}. What day was yesterday?", -1),
)
_LENGTH = (
    "How many days has {x}?",
    "How many days does {x} have?",
    "How many days are in {x}?",
    "How many days are there in {x}?",
    "Number of days in {x}?",
    "How long is {x}?",
)
_NUMBER = (
    "Which month is number {n}?",
    "What is month number {n}?",
    "What month is number {n}?",
    "Which is the {o} month?",
    "What is the {o} month of the year?",
    "Name the {o} month",
    "What is the {o} month?",
    "Which month is the {o}?",
)
_NUMBER_OF = (
    "Which number is {x}?",
    "What number is {x}?",
    "What is the number of {x}?",
    "Which month number is {x}?",
    "What number does {x} have?",
)
_LISTS = (
    "List the {us}",
    "Name the {us}",
    "What are the {us}?",
    "Tell me the {us}",
    "Give me the {us}",
    "List all {us}",
    "Name all {us}",
    "Say the {us}",
    "Write the {us}",
    "Can you list the {us}?",
    "Which {us} are there?",
    "List all the {us}",
)
_LISTED_DAYS = ("days of the week", "days", "weekdays", "seven days of the week", "week days")
_LISTED_MONTHS = ("months of the year", "months", "twelve months", "12 months", "months in a year")
_COUNTS = {
    "There are 7 days in a week.": (
        "How many days are in a week?",
        "How many days has a week?",
        "How many days does a week have?",
    ),
    "There are 12 months in a year.": (
        "How many months are in a year?",
        "How many months has a year?",
        "How many months does a year have?",
    ),
    "There are 365 days in a year.": (
        "How many days are in a year?",
        "How many days has a year?",
        "How many days does a year have?",
    ),
    "There are 24 hours in a day.": ("How many hours are in a day?", "How many hours has a day?"),
}


def _neighbour(src: Source) -> tuple[str, str]:
    names, unit = (DAYS, "day") if src.chance(0.5) else (MONTHS, "month")
    index = src.rng.randrange(len(names))
    step, templates, word = src.pick(((1, _AFTER, "after"), (-1, _BEFORE, "before")))
    asked = src.ask(templates, polite=False, u=unit, x=names[index])
    return asked, f"{names[(index + step) % len(names)]} comes {word} {names[index]}."


def _tomorrow(src: Source) -> tuple[str, str]:
    template, step = src.pick(_TODAY)
    index = src.rng.randrange(7)
    word = "Tomorrow is" if step == 1 else "Yesterday was"
    return src.ask((template,), polite=False, x=DAYS[index]), f"{word} {DAYS[(index + step) % 7]}."


def _month_fact(src: Source) -> tuple[str, str]:
    index = src.rng.randrange(12)
    name = MONTHS[index]
    roll = src.rng.random()
    if roll < 0.4:
        asked = src.ask(_LENGTH, polite=False, x=name)
        extra = " (29 in leap years)" if index == 1 else ""
        return asked, f"{name} has {_LENGTHS[index]} days{extra}."
    if roll < 0.8:
        asked = src.ask(_NUMBER, polite=False, n=index + 1, o=_ORDINALS[index])
        return asked, f"Month number {index + 1} is {name}."
    return src.ask(_NUMBER_OF, polite=False, x=name), f"{name} is month number {index + 1}."


def _listing(src: Source) -> tuple[str, list[str], str]:
    """The request for a list, the names in the order asked for, and what stands between them."""
    names, called = (DAYS, _LISTED_DAYS) if src.chance(0.5) else (MONTHS, _LISTED_MONTHS)
    asked = src.ask(_LISTS, us=src.pick(called))
    question = asked.endswith("?")
    if src.chance(0.25) and not question and asked[-1].isalpha():
        asked += src.pick((" backwards", " in reverse order", " in reverse", " backward"))
        names = names[::-1]
    if src.chance(0.2) and not question and asked[-1].isalpha():
        return asked + src.pick((" separated by commas", " in one line")), names, ", "
    return asked, names, "\n"


def calendar(src: Source) -> Dialogue:
    roll = src.rng.random()
    if roll < 0.4:
        return chat("calendar", *_neighbour(src))
    if roll < 0.5:
        return chat("calendar", *_tomorrow(src))
    if roll < 0.78:
        return chat("calendar", *_month_fact(src))
    if roll < 0.82:
        answer = src.pick(list(_COUNTS))
        return chat("calendar", src.ask(_COUNTS[answer], polite=False), answer)
    asked, names, separator = _listing(src)
    return chat("calendar", asked, separator.join(names))


def list_then_backwards(src: Source) -> Dialogue:
    asked, names, separator = _listing(src)
    back = separator.join(names[::-1])
    return chat("follow-up", asked, separator.join(names), src.ask(BACKWARDS, polite=False), back)
