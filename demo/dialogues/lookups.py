"""Generated tools: a verb and a thing, which may be an invented word, and one parameter.

They are what makes calling a tool a skill rather than a list of tools: which tool fits, what its
name and parameter are, and what to pass, can only be read off the conversation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .base import Source, listed
from .words import COMMON, city, invented_word, number_text

STRING, INTEGER = "string", "integer"


@dataclass(frozen=True)
class Use:
    tool: dict[str, Any]
    request: str
    arguments: dict[str, object]
    result: str
    answer: str


def schema(
    name: str,
    description: str,
    parameters: dict[str, tuple[str, str]],
    optional: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A tool in the usual form; each parameter has a type and, unless empty, a description."""
    properties = {
        key: {"type": kind, **({"description": text} if text else {})}
        for key, (kind, text) in parameters.items()
    }
    required = [key for key in parameters if key not in optional]
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }


def described(src: Source, text: str) -> str:
    return text if src.chance(0.4) else ""


_VERBS = ("get", "lookup", "find", "search", "fetch", "read", "show", "check", "query", "load")
_THINGS = listed(
    "order|ticket|invoice|user|product|flight|hotel|recipe|movie|song|book|stock|price|time|news|"
    "population|exchange rate|balance|account|customer|package|shipment|contract|file|event|"
    "meeting|task|project|train|bus|restaurant|museum|address|phone number|profile|score|team|"
    "player|game|job|course|lesson|exam|grade|patient|doctor|room|device|sensor|lamp|alarm|"
    "calendar|route|map|distance|holiday|currency|company|employee|salary|tax|loan|website|"
    "page|document|picture|video|article|definition|translation|synonym|word|number|code|"
    "parcel|menu|table|seat|car|bike|battery|printer|server|model|license|report|status",
    "|",
)
_KEYS = (
    "id",
    "name",
    "query",
    "city",
    "number",
    "key",
    "term",
    "title",
    "code",
    "person",
    "place",
    "location",
    "topic",
    "ref",
    "value",
    "label",
    "timezone",
    "symbol",
    "text",
)
_REQUESTS = (
    "{v} the {t} {x}",
    "{v} {t} {x}",
    "What is the {t} of {x}?",
    "What is the {t} for {x}?",
    "Tell me the {t} of {x}",
    "I need the {t} for {x}",
    "Show me the {t} {x}",
    "{t} {x}",
    "What's the {t} in {x}?",
    "Give me the {t} of {x}",
    "Do you know the {t} of {x}?",
    "{v} the {t} for {x}",
    "{v} the {t} with the {k} {x}",
    'Show the {t} "{x}"',
    "What is the {t} in {x}?",
    "Look up the {t} {x}",
    "Where is {t} {x}?",
    "{v} {t} with {k} {x}",
    "Use the {t} tool for {x}",
)


def lookup(src: Source) -> Use:
    """A generated tool, named after a thing that may be an invented word, with one parameter."""
    thing = src.fresh(lambda: invented_word(src) if src.chance(0.35) else src.pick(_THINGS))
    verb, key = src.pick(_VERBS), src.pick(_KEYS)
    if src.chance(0.15):
        key = src.fresh(lambda: invented_word(src, 2))
    name = f"{verb}_{thing.replace(' ', '_')}"
    numeric = src.chance(0.35)
    value = src.fresh(lambda: int(number_text(src)) if numeric else some_value(src))
    tool = schema(
        name,
        src.pick(
            (
                f"{verb.capitalize()} the {thing}",
                f"{verb.capitalize()} a {thing} by {key}",
                f"Returns the {thing} for a {key}",
            )
        ),
        {key: (INTEGER if numeric else STRING, described(src, f"The {key} of the {thing}"))},
    )
    asked = src.ask(_REQUESTS, v=verb.capitalize(), t=thing, x=value, k=key)
    result, answer = outcome(src, thing)
    return Use(tool, asked, {key: value}, result, answer)


def some_value(src: Source) -> str:
    roll = src.rng.random()
    if roll < 0.3:
        return invented_word(src).capitalize()
    if roll < 0.5:
        return src.pick(COMMON)
    if roll < 0.7:
        return city(src)
    if roll < 0.8:
        return f"{invented_word(src, 1).upper()}-{number_text(src)}"
    return " ".join(invented_word(src) if src.chance(0.4) else src.pick(COMMON) for _ in range(2))


def outcome(src: Source, thing: str) -> tuple[str, str]:
    """What a generated tool answers, as a bare value or as JSON, and the sentence made of it."""
    value = number_text(src) if src.chance(0.5) else some_value(src)
    if src.chance(0.25):
        return value, f"The result is {value}."
    first = src.pick(("status", "price", "result", "value", "name", "time", "date", "total", thing))
    if src.chance(0.6):
        return json.dumps({first: value}), f"The {first} is {value}."
    second = src.pick(("owner", "place", "count", "color", "size", "state"))
    other = some_value(src)
    return json.dumps(
        {first: value, second: other}
    ), f"The {first} is {value} and the {second} is {other}."
