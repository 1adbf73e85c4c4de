"""What every test leaves as it found it, and which tests one worker runs after each other.

`make test` runs two workers. A fixture of the session is made in each worker that asks for it; so
whatever shares something that is slow to make is one group, which one worker runs.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# How long a machine takes to draw an example says nothing about the code, only how busy it is.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# One group each: their servers, PostgreSQL, browser and models take seconds. Long ones come first.
_FOLDERS = ("tests/e2e", "tests/store", "tests/page", "tests/embedded")
# But for one that takes as long as all others: files from this name on are a group of their own,
# after the folders, so that both workers have their share.
_LATER = "tests/e2e/test_m"
# Each of these makes what it needs itself; they fill in where a worker would be idle at the end.
_ALONE = ("test_model_types.py", "test_architectures.py")


class Groups(LoadScopeScheduling):
    """Hands out groups of tests, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return _place(nodeid)[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the garbage collector from what is imported and collected: a million objects that stay,
    and that each full collection would look through."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.nodeid)[0])


def _place(test: str) -> tuple[int, str]:
    """The test's place in the order, and its group."""
    file = test.partition("::")[0]
    folder = "/".join(file.split("/")[:2])
    if file.startswith("tests/e2e/") and file >= _LATER:
        return len(_FOLDERS), _LATER
    if folder in _FOLDERS:
        return _FOLDERS.index(folder), folder
    return len(_FOLDERS) + (2 if file.endswith(_ALONE) else 1), file


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command line sends the log to standard error, which is another one in the next test."""
    root, ours = logging.getLogger(), logging.getLogger("millstream")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
