"""Counting up and down, to and from any number, with steps, one per line or in one line."""

from __future__ import annotations

from collections.abc import Iterable

from .base import Dialogue, Source, chat, listed

NUMBER_WORDS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)

_TO = (
    "Count to {b}",
    "Count up to {b}",
    "Count from 1 to {b}",
    "Count from one to {b}",
    "Say the numbers from 1 to {b}",
    "List the numbers from 1 to {b}",
    "Count till {b}",
    "Count until {b}",
    "Can you count to {b}?",
    "Give me the numbers 1 to {b}",
    "Let's count to {b}",
    "Write the numbers from 1 to {b}",
)
_FROM = (
    "Count from {a} to {b}",
    "Count up from {a} to {b}",
    "List the numbers from {a} to {b}",
    "Start at {a} and count to {b}",
    "Write the numbers from {a} to {b}",
    "Can you count from {a} to {b}?",
    "Numbers from {a} to {b}",
    "Count {a} to {b}",
)
_BACK = (
    "Count backwards from {a}",
    "Count down from {a}",
    "Countdown from {a}",
    "Count backward from {a}",
    "Do a countdown from {a}",
    "Can you count backwards from {a}?",
)
_DOWN = (
    "Count down from {a} to {b}",
    "Count backwards from {a} to {b}",
    "Count from {a} down to {b}",
    "Count backward from {a} to {b}",
    "Count from {a} to {b}",
)
_STEPS = (
    "Count from {a} to {b} in steps of {k}",
    "Count from {a} to {b} by {k}",
    "Count up from {a} to {b} in steps of {k}",
    "Count from {a} to {b} in {k}s",
)
_COMMAS = (
    " separated by commas",
    " in one line",
    ", comma separated",
    " with commas",
    " on one line",
    ", separated by commas",
)
_LINES = (" one per line", ", one per line", ", each on its own line", " line by line")

# What a follow-up "and backwards?" looks like; shared with lists of days and months.
BACKWARDS = (
    "And backwards?",
    "And now backwards",
    "Now backwards",
    "Now do it backwards",
    "And in reverse?",
    "Backwards please",
    "Now in reverse order",
    "And the other way round?",
    "Now count backwards",
    "Can you do it backwards?",
)


def write_numbers(numbers: Iterable[int], *, commas: bool) -> str:
    return (", " if commas else "\n").join(map(str, numbers))


def _layout(src: Source) -> tuple[str, bool]:
    """How the request asks for its numbers: words to append, and whether they mean commas."""
    roll = src.rng.random()
    if roll < 0.2:
        return src.pick(_COMMAS), True
    return (src.pick(_LINES), False) if roll < 0.27 else ("", False)


def _with_layout(template: str, words: str) -> str:
    return template.rstrip("?") + words if words else template


def _span(src: Source) -> int:
    return src.rng.randint(2, 12) if src.chance(0.6) else src.rng.randint(8, 24)


def _upwards(src: Source) -> tuple[str, tuple[str, ...], list[int], dict[str, int]]:
    start = src.rng.randint(0, 99) if src.chance(0.75) else src.rng.randint(0, 900)
    end = start + _span(src)
    return f"from {start} to {end}", _FROM, list(range(start, end + 1)), {"a": start, "b": end}


def _downwards(src: Source) -> tuple[str, tuple[str, ...], list[int], dict[str, int]]:
    end = src.rng.randint(0, 80) if src.chance(0.8) else src.rng.randint(0, 900)
    start = end + _span(src)
    return f"from {start} to {end}", _DOWN, list(range(start, end - 1, -1)), {"a": start, "b": end}


def _stepwise(src: Source) -> tuple[str, tuple[str, ...], list[int], dict[str, int]]:
    step = src.pick((2, 2, 3, 5, 5, 10, 10))
    start = src.rng.randint(0, 12) * step if src.chance(0.7) else src.rng.randint(0, 60)
    end = start + step * src.rng.randint(2, 9)
    values: dict[str, int] = {"a": start, "b": end, "k": step}
    return f"{start} {end} step {step}", _STEPS, list(range(start, end + 1, step)), values


def _from_one(src: Source, *, down: bool) -> Dialogue:
    """Counting to a number, or backwards from one.

    Only whole prompts are held out here, not numbers: with a hundred of them, a number that never
    ends a count in training would teach that no count ends there.
    """
    limit = 100 if src.chance(0.06) else src.rng.choice((10, 20, 30, 50, 40))
    end = 10 if not src.held_out and src.chance(0.08) else src.rng.randint(2, limit)
    shown: object = NUMBER_WORDS[end] if end <= 20 and src.chance(0.15) else end
    words, commas = _layout(src)
    numbers = range(end, 0, -1) if down else range(1, end + 1)
    value = "a" if down else "b"
    prompt = src.fill([_with_layout(t, words) for t in (_BACK if down else _TO)], {value: shown})
    return chat("counting", prompt, write_numbers(numbers, commas=commas))


def counting(src: Source) -> Dialogue:
    roll = src.rng.random()
    if roll < 0.45:
        return _from_one(src, down=roll < 0.15)
    make = _upwards if roll < 0.7 else _downwards if roll < 0.88 else _stepwise
    _, templates, numbers, values = src.fresh(lambda: make(src), lambda drawn: drawn[0])
    words, commas = _layout(src)
    prompt = src.fill([_with_layout(t, words) for t in templates], values)
    return chat("counting", prompt, write_numbers(numbers, commas=commas))


def counting_then_backwards(src: Source) -> Dialogue:
    """Count, then the same numbers the other way round, which only the earlier turn tells."""
    first = counting(src)
    counted = str(first.messages[1]["content"])
    separator = "\n" if "\n" in counted else ", "
    back = separator.join(reversed(counted.split(separator)))
    return chat(
        "follow-up",
        str(first.messages[0]["content"]),
        counted,
        src.ask(BACKWARDS, polite=False),
        back,
    )
