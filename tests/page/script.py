"""What the model of a scripted server says; see `tests.page.scripted_server`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.page.scripted_server import HOLD, SCRIPT, UNSCRIPTED

__all__ = ["HOLD", "SCRIPT", "UNSCRIPTED", "Script", "call"]


class Script:
    """The file with the answers, which the model reads whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Forgets all answers."""
        self._answers: dict[str, Any] = {}
        self._releases: dict[str, int] = {}
        self._write()

    def say(
        self, question: str, answer: str, *, seconds: float = 0.002, by_letter: bool = False
    ) -> None:
        """The model will answer so. seconds: for each token. by_letter: each letter is a token.

        question: the last thing that is said to the model: a user's text, or a tool's result. The
        answer is as the model writes it: thoughts in `<think>`, calls as `call()` writes them, and
        at each `HOLD` it waits for `go_on()`.
        """
        self._answers[question] = {"text": answer, "seconds": seconds, "by_letter": by_letter}
        self._releases[question] = 0
        self._write()

    def go_on(self, question: str, *, times: int = 1) -> None:
        """Lets the answers to this question go on to their next hold."""
        self._releases[question] += times
        self._write()

    def _write(self) -> None:
        script = {"answers": self._answers, "releases": self._releases}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(script), encoding="utf-8")
        os.replace(new, self.path)


def call(name: str, /, **arguments: Any) -> str:
    """A call of a tool as the model writes it; the chat's settings must offer this tool."""
    text = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{text}\n</tool_call>"
