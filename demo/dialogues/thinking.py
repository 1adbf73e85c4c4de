"""Thinking when asked to: working out sums step by step, and one line of thought for all the rest.

A thought is asked for by the template (`enable_thinking`), by the user, or by the system prompt;
without any of these the model never thinks.
"""

from __future__ import annotations

from .base import Dialogue, Source, assistant, user
from .calendar import calendar
from .counting import counting
from .facts import facts
from .memory import told_name
from .repeating import repeating
from .smalltalk import greeting
from .sums import question, solve, statement
from .tools import tool_call
from .unknown import unknown

_THINK_FIRST = (
    "Think first: {q}",
    "Think step by step: {q}",
    "{q} /think",
    "/think {q}",
    "{q} Think first.",
    "Think before you answer: {q}",
    "Think about it first: {q}",
    "Please think first. {q}",
    "{q} Think step by step.",
)
_THINK_SYSTEM = (
    "Think before you answer.",
    "Always think first.",
    "/think",
    "Think step by step.",
    "You are a helpful assistant. Think before you answer.",
)
_THOUGHTS = {
    "counting": "I write the numbers in order.",
    "repeating": "I repeat what was said.",
    "calendar": "I know the days and months.",
    "greeting": "This is small talk.",
    "memory": "I look for the name in our talk.",
    "facts": "This is something I know.",
    "tools": "A tool fits this request.",
    "unknown": "This is not something I know.",
}


def working(a: int, op: str, b: int) -> str:
    """The steps a thought writes down: ones and tens apart, so that no step is hard."""
    if op == "*":
        return f"{a} times {b} is {solve(a, op, b)}."
    ones, tens = b % 10, b - b % 10
    between = solve(a, op, tens)
    return f"{a} {op} {tens} = {between}, {between} {op} {ones} = {solve(between, op, ones)}."


def thinking(src: Source) -> Dialogue:
    """A sum, worked out in a thought."""
    text, drawn = question(src)
    answer = assistant(statement(*drawn), working(*drawn))
    roll = src.rng.random()
    if roll < 0.45:
        return Dialogue("thinking", [user(text), answer], thinking="on")
    if roll < 0.85:
        return Dialogue("thinking", [user(src.pick(_THINK_FIRST).format(q=text)), answer])
    system = {"role": "system", "content": src.pick(_THINK_SYSTEM)}
    return Dialogue("thinking", [system, user(text), answer])


def thinking_shortly(src: Source) -> Dialogue:
    """One line of thought about a task that needs none, for when thinking is switched on."""
    writer = src.pick(
        (counting, repeating, calendar, greeting, told_name, facts, tool_call, unknown)
    )
    dialogue = writer(src)
    last = dialogue.messages[-1]
    if dialogue.messages[-2]["role"] == "user":
        last["reasoning_content"] = _THOUGHTS[dialogue.skill]
        dialogue.thinking = "on"
    return Dialogue("thinking", dialogue.messages, dialogue.tools, dialogue.thinking)
