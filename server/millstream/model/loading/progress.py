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

from millstream.core.status import Report

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
def progress_of_transformers(report: Report) -> Iterator[None]:
    """Inside, transformers shows a bar in a terminal, logs lines elsewhere, and warns of nothing.

    Nobody reads of progress who does not log at `info`; `report` hears of all.
    """
    ours: Any = hf_logging  # not typed
    had_bar = ours.is_progress_bar_enabled()
    is_heard = log.isEnabledFor(logging.INFO)
    has_terminal = sys.stderr.isatty()
    if not (has_terminal and is_heard):
        ours.disable_progress_bar()
    has_lines = is_heard and not has_terminal

    def follow(factory: Callable[..., Any], args: tuple[Any, ...], options: Any) -> Any:
        """What transformers iterates over. factory: makes a bar, which may be invisible."""
        if args and hasattr(args[0], "__len__"):
            total, what = len(args[0]), str(options.get("desc") or "loading").lower()
            items = logged(args[0], what=what, total=total) if has_lines else args[0]
            args = (_reported(items, report, what=what, total=total), *args[1:])
            options = {"total": total, **options}
        return factory(*args, **options)

    had_hook = ours.set_tqdm_hook(follow)
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


def _reported(items: Iterable[T], report: Report, *, what: str, total: int) -> Iterator[T]:
    """The items; `report` hears of each hundredth of them that is done."""
    last = -1
    for number, item in enumerate(items):
        if (percent := 100 * number // total) > last:
            last = percent
            report(what, percent / 100)
        yield item
