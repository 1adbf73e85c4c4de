"""Small sums, differences and products, and the follow-ups that go on with a result."""

from __future__ import annotations

from .base import Dialogue, Source, chat
from .counting import NUMBER_WORDS

_FORMS: dict[str, tuple[str, ...]] = {
    "+": (
        "What is {a} + {b}?",
        "{a} + {b}",
        "{a}+{b}",
        "{a} + {b} = ?",
        "What is {a} plus {b}?",
        "{a} plus {b}",
        "Add {a} and {b}",
        "How much is {a} + {b}?",
        "Calculate {a} + {b}",
        "What is the sum of {a} and {b}?",
        "How much is {a} plus {b}?",
        "What's {a} + {b}?",
        "What's {a} plus {b}?",
        "Compute {a} + {b}",
        "Can you add {a} and {b}?",
        "Sum {a} and {b}",
        "Tell me {a} + {b}",
        "{a} and {b} make?",
        "Solve {a} + {b}",
        "{a}+{b}=?",
    ),
    "-": (
        "What is {a} - {b}?",
        "{a} - {b}",
        "{a}-{b}",
        "What is {a} minus {b}?",
        "{a} minus {b}",
        "Subtract {b} from {a}",
        "How much is {a} - {b}?",
        "Calculate {a} - {b}",
        "{a} - {b} = ?",
        "What is the difference of {a} and {b}?",
        "How much is {a} minus {b}?",
        "What's {a} - {b}?",
        "What's {a} minus {b}?",
        "Compute {a} - {b}",
        "Take {b} away from {a}",
        "{a}-{b}=?",
    ),
    "*": (
        "What is {a} * {b}?",
        "{a} * {b}",
        "{a} x {b}",
        "What is {a} times {b}?",
        "{a} times {b}",
        "Multiply {a} by {b}",
        "How much is {a} * {b}?",
        "Calculate {a} * {b}",
        "{a}*{b}",
        "What is the product of {a} and {b}?",
        "How much is {a} times {b}?",
        "What's {a} x {b}?",
        "Multiply {a} and {b}",
        "Compute {a} * {b}",
        "What is {a} x {b}?",
    ),
}
_NEXT: dict[str, tuple[str, ...]] = {
    "+": (
        "And plus {b}?",
        "Plus {b}?",
        "Now add {b}",
        "And add {b}",
        "Add {b}",
        "plus {b}",
        "+ {b}",
        "And if you add {b}?",
        "Now plus {b}",
    ),
    "-": (
        "And minus {b}?",
        "Minus {b}?",
        "Now subtract {b}",
        "Subtract {b}",
        "minus {b}",
        "- {b}",
        "Take away {b}",
        "Now minus {b}",
    ),
}


def solve(a: int, op: str, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b


def statement(a: int, op: str, b: int) -> str:
    return f"{a} {op} {b} = {solve(a, op, b)}."


def _draw(src: Source) -> tuple[int, str, int]:
    def make() -> tuple[int, str, int]:
        op = src.rng.choices("+-*", (5, 4, 2))[0]
        if op == "*":
            return src.rng.randint(0, 10), op, src.rng.randint(0, 10)
        most = src.pick((10, 20, 100, 100, 100))
        a, b = src.rng.randrange(most), src.rng.randrange(most)
        if op == "-" and a < b and src.chance(0.9):
            a, b = b, a
        return a, op, b

    return src.fresh(make, _sum_key)


def _sum_key(drawn: tuple[int, str, int]) -> str:
    """Products are held out in one order only: 7 times 8 can not be worked out, just known."""
    a, op, b = drawn
    return "product, trained" if op == "*" and a <= b else f"{a} {'+-*'.index(op)} {b}"


def _as_words(src: Source, number: int) -> object:
    return NUMBER_WORDS[number] if number <= 12 and src.chance(0.08) else number


def question(src: Source) -> tuple[str, tuple[int, str, int]]:
    a, op, b = _draw(src)
    text = src.ask(_FORMS[op], polite=src.chance(0.4), a=_as_words(src, a), b=_as_words(src, b))
    return text, (a, op, b)


def sums(src: Source) -> Dialogue:
    text, drawn = question(src)
    return chat("sums", text, statement(*drawn))


def sum_follow_up(src: Source) -> Dialogue:
    """`And plus 5?`: the result of the turn before goes on."""
    text, drawn = question(src)
    result = solve(*drawn)
    op = src.pick("+-")
    low = 0 if op == "+" else min(1, max(result, 0))
    b = src.rng.randint(low, 20) if op == "+" else src.rng.randint(low, max(low, min(result, 20)))
    asked = src.ask(_NEXT[op], polite=False, b=b)
    return chat("follow-up", text, statement(*drawn), asked, statement(result, op, b))
