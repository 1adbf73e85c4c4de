"""What the programs here have in common: how a case is marked and run, and what is said in them.

A program marks its functions with `case` and ends with `run()`, which writes a line of JSON for
each. The addresses of two servers are in the environment: with the demo model, and with a model
that says what script.py has for it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel

MODEL = "millstream-demo"
DEMO_URL, SCRIPTED_URL = (f"{os.environ[name]}/v1" for name in ("DEMO_URL", "SCRIPTED_URL"))
KEY = os.environ["OPENAI_API_KEY"]
# So long that not all of it can come in one piece.
COUNT, COUNTED = "Count to 20", "\n".join(map(str, range(1, 21)))
ADD, ADDED = "Please add 2 and 40.", "The result is 42."
TOO_LONG = "word " * 4000

_cases: list[Callable[[], Any]] = []


class User(BaseModel):
    name: str
    age: int


EXTRACT, DORA = "Extract: Dora is 36.", User(name="Dora", age=36)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def case(function: Callable[[], Any]) -> Callable[[], Any]:
    """Marks a function, or a coroutine's, as a case."""
    _cases.append(function)
    return function


def run() -> None:
    """Runs the cases: a line of JSON for each, with its name and its failure or null."""
    for function in _cases:
        name = function.__name__.replace("_", " ")
        # Frameworks write to standard output, too: a case begins a line of its own.
        print("\n" + json.dumps({"name": name, "failure": _failure(function)}), flush=True)


def _failure(function: Callable[[], Any]) -> str | None:
    try:
        outcome = function()
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)
    except Exception:
        return traceback.format_exc()
    return None


def is_told_in(call: Callable[[], Any]) -> bool:
    """Whether a call with a prompt that is too long fails, and says why in the server's words."""
    try:
        call()
    except Exception as error:
        return _is_told(error)
    return False


async def is_told_in_await(call: Awaitable[Any]) -> bool:
    """The same for what is awaited."""
    try:
        await call
    except Exception as error:
        return _is_told(error)
    return False


def _is_told(error: Exception) -> bool:
    return "context holds 2048 tokens" in str(error)
