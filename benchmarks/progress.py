"""Progress on standard error, apart from the figures on standard output."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
