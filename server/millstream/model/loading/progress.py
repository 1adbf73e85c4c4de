"""How far the loading of weights is: transformers' bar in a terminal, else a log line now and then.

Rule: what takes no longer than one interval is not spoken of.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from transformers.utils import logging as hf_logging

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers warns of nothing."""
    ours: Any = hf_logging  # not typed
    verbosity = ours.get_verbosity()
    ours.set_verbosity_error()
    try:
        yield
    finally:
        ours.set_verbosity(verbosity)


@contextmanager
def progress_of_transformers() -> Iterator[None]:
    """Inside, transformers shows a bar in a terminal, logs lines elsewhere, and warns of nothing.

    Nobody hears of progress who does not log at `info`.
    """
    ours: Any = hf_logging  # not typed
    had_bar = ours.is_progress_bar_enabled()
    is_heard = log.isEnabledFor(logging.INFO)
    has_terminal = sys.stderr.isatty()
    if not (has_terminal and is_heard):
        ours.disable_progress_bar()
    had_hook = ours.set_tqdm_hook(None if has_terminal or not is_heard else _without_bar)
    try:
        with quiet_transformers():
            yield
    finally:
        ours.set_tqdm_hook(had_hook)
        if had_bar:
            ours.enable_progress_bar()


def logged(
    items: Iterable[T], *, what: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[T]:
    """The items; a line says every few seconds how many of them are done. what: heads the line."""
    last = clock()
    for number, item in enumerate(items):
        now = clock()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            log.info("%s: %d of %d (%.0f %%)", what, number, total, 100 * number / total)
        yield item


def _without_bar(factory: Callable[..., Any], args: tuple[Any, ...], options: Any) -> Any:
    """What transformers iterates over instead of a bar. factory: makes an invisible one."""
    if args and hasattr(args[0], "__len__"):
        what = str(options.get("desc") or "loading").lower()
        args = (logged(args[0], what=what, total=len(args[0])), *args[1:])
    return factory(*args, **options)
