"""The tools that dialogues offer: the everyday ones, each with the requests people make of it.

A `Use` is one request together with the call it should lead to, what the tool answers, and how that
answer reads. Values, and what generated tools are about (`lookups`), are split by the hold-out
hash, so held-out dialogues ask for things, and of tools, that training never saw.
"""

from __future__ import annotations

import json

from .base import Source
from .lookups import INTEGER, STRING, Use, described, lookup, outcome, schema, some_value
from .words import COMMON, city, invented_word, person

_WEATHER_TOOLS = (
    "get_weather",
    "get_current_weather",
    "weather",
    "current_weather",
    "weather_forecast",
    "check_weather",
)
_WEATHER_REQUESTS = (
    "What is the weather in {c}?",
    "What's the weather like in {c}?",
    "How is the weather in {c}?",
    "Weather in {c}",
    "Tell me the weather in {c}",
    "How warm is it in {c}?",
    "Is it raining in {c}?",
    "Get the weather for {c}",
    "What is the weather like in {c} today?",
    "What is the weather in {c} now?",
)
_SKIES = ("sunny", "cloudy", "rainy", "clear", "windy", "snowy", "foggy")
_MESSAGES = (
    ("send_email", ("to", "subject"), "email"),
    ("send_mail", ("recipient", "subject"), "mail"),
    ("send_message", ("to", "text"), "message"),
    ("create_note", ("title", "text"), "note"),
)


def weather(src: Source) -> Use:
    name = src.pick(_WEATHER_TOOLS)
    key = src.pick(("city", "location", "place", "town"))
    place = city(src)
    parameters = {key: (STRING, described(src, f"The {key}, e.g. {city(src)}"))}
    arguments: dict[str, object] = {key: place}
    unit = ""
    if src.chance(0.3):
        parameters["unit"] = (STRING, described(src, "celsius or fahrenheit"))
        if src.chance(0.5):
            unit = src.pick(("celsius", "fahrenheit"))
            arguments["unit"] = unit
    description = src.pick(
        (
            "Get the current weather",
            "Get the weather for a city",
            f"Get the current weather in a given {key}",
            "Current weather",
        )
    )
    tool = schema(name, description, parameters, ("unit",))
    asked = src.ask(_WEATHER_REQUESTS, c=place)
    if unit:
        asked = asked.rstrip("?.!") + f" in {unit}" + ("?" if src.chance(0.5) else "")
    result, answer = _forecast(src, place)
    return Use(tool, asked, arguments, result, answer)


def _forecast(src: Source, place: str) -> tuple[str, str]:
    """What the tool answers, and how that reads."""
    degrees = src.rng.randint(-9, 39)
    sky = src.pick((*_SKIES, invented_word(src)))
    pairs: list[tuple[str, object]] = [
        (src.pick(("temperature", "temp", "degrees")), degrees),
        (src.pick(("condition", "sky", "weather", "conditions")), sky),
    ]
    result = json.dumps(dict(pairs if src.chance(0.6) else pairs[::-1]))
    if src.chance(0.25):
        result = src.pick((f"{sky}, {degrees} degrees", f"{sky}, {degrees}"))
    return result, f"The weather in {place} is {sky}, {degrees} degrees."


def arithmetic(src: Source) -> Use:
    name, word, sign = src.pick(
        (
            ("add", "plus", "+"),
            ("multiply", "times", "*"),
            ("subtract", "minus", "-"),
            ("divide", "divided by", "/"),
        )
    )
    first, second = src.pick((("a", "b"), ("x", "y"), ("first", "second"), ("left", "right")))
    name += src.pick(("", "", "_numbers", "_two_numbers"))
    a, b = src.fresh(lambda: (src.rng.randint(0, 9999), src.rng.randint(0, 999)), str)
    tool = schema(
        name,
        src.pick(
            (f"{name.split('_')[0].capitalize()} two numbers", f"Computes {first} {word} {second}")
        ),
        {first: (INTEGER, ""), second: (INTEGER, "")},
    )
    asked = src.ask(
        (
            f"What is {{a}} {word} {{b}}?",
            f"What is {{a}} {sign} {{b}}?",
            f"Calculate {{a}} {word} {{b}}",
            f"{{a}} {sign} {{b}}",
            f"How much is {{a}} {word} {{b}}?",
        ),
        a=a,
        b=b,
    )
    outcome = {"plus": a + b, "times": a * b, "minus": a - b}.get(word, a // max(b, 1))
    result = str(outcome) if src.chance(0.6) else json.dumps({"result": outcome})
    return Use(tool, asked, {first: a, second: b}, result, f"The result is {outcome}.")


def mail(src: Source) -> Use:
    name, (first, second), verb = src.pick(_MESSAGES)
    who = person(src)
    to = f"{who.lower()}@{invented_word(src)}.com" if "mail" in verb and src.chance(0.5) else who
    about = " ".join(
        invented_word(src) if src.chance(0.3) else src.pick(COMMON)
        for _ in range(src.rng.randint(1, 3))
    )
    thing = f"an {verb}" if verb[0] in "aeiou" else f"a {verb}"
    joint = f"with the {second}" if src.chance(0.6) else "with"
    asked = _asked_to_write(src, thing, joint, {"t": to, "s": about})
    tool = schema(
        name,
        f"{name.split('_')[0].capitalize()} {thing}",
        {first: (STRING, ""), second: (STRING, described(src, f"The {second}"))},
    )
    status = src.pick(("sent", "ok", "done", "queued", "delivered"))
    return Use(
        tool,
        asked,
        {first: to, second: about},
        json.dumps({"status": status}),
        f"The status is {status}.",
    )


def _asked_to_write(src: Source, thing: str, joint: str, values: dict[str, str]) -> str:
    """values: t, whom to or what to call it, and s, what to say."""
    sent = (f"Send {thing} to {{t}} {joint} {{s}}", f'Send {thing} to {{t}} {joint} "{{s}}"')
    # Intentional: drawn for notes as well, so that a seed gives the dialogues that it always gave.
    asked = src.fill(sent, values)
    if thing != "a note":
        return asked
    noted = (
        f'Create a note titled {{t}} {joint} "{{s}}"',
        "Make a note with the title {t} and the text {s}",
    )
    return src.fill(noted, values)


def search(src: Source) -> Use:
    name = src.pick(("search", "web_search", "search_web", "google", "search_documents", "find"))
    key = src.pick(("query", "q", "text", "term", "words"))
    wanted = src.fresh(
        lambda: f"{some_value(src)} {src.pick(COMMON)}" if src.chance(0.5) else some_value(src)
    )
    tool = schema(
        name,
        src.pick(("Search the web", "Search for something", f"Search by {key}")),
        {key: (STRING, described(src, "What to search for"))},
    )
    asked = src.ask(
        ("Search for {x}", "Search the web for {x}", "Look up {x}", "Find {x}", 'Search for "{x}"'),
        x=wanted,
    )
    result, answer = outcome(src, "title")
    return Use(tool, asked, {key: wanted}, result, answer)


def clock(src: Source) -> Use:
    name = src.pick(("get_time", "get_current_time", "current_time", "time_in", "get_local_time"))
    key = src.pick(("timezone", "city", "location", "place", "zone"))
    place = city(src)
    tool = schema(
        name,
        src.pick(("Get the current time", f"Get the time in a {key}", "Current time")),
        {key: (STRING, described(src, f"The {key}"))},
    )
    asked = src.ask(
        (
            "What time is it in {c}?",
            "What is the time in {c}?",
            "Time in {c}",
            "Tell me the time in {c}",
        ),
        c=place,
    )
    time = f"{src.rng.randrange(24):02}:{src.rng.randrange(60):02}"
    result = (
        time if src.chance(0.3) else json.dumps({src.pick(("time", "local_time", "now")): time})
    )
    return Use(tool, asked, {key: place}, result, f"The time in {place} is {time}.")


def any_use(src: Source) -> Use:
    writers = (weather, arithmetic, mail, lookup, search, clock)
    return src.rng.choices(writers, (4, 2, 2, 6, 1.5, 1.5))[0](src)
