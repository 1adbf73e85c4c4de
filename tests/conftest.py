"""What every test leaves as it found it, and which tests one worker runs after each other.

`make test` runs two workers. A fixture of the session is made in each worker that asks for it; so
whatever shares something that is slow to make is one group, which one worker runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# How long a machine takes to draw an example says nothing about the code, only how busy it is.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

_FOLDERS = ("tests/store", "tests/embedded")
_SERVERS = {"demo_server", "endless_server", "small_server"}
# Each of these makes what it needs itself; they fill in where a worker would be idle at the end.
_ALONE = ("test_model_types.py", "test_architectures.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the tests, the longest groups first."""
    ranks = {item: _rank(item) for item in items}
    items.sort(key=lambda item: ranks[item][0])
    for item in items:
        if group := ranks[item][1]:
            item.add_marker(pytest.mark.xdist_group(group))


def _rank(item: pytest.Item) -> tuple[int, str]:
    """The test's place in the order, and its group; none where it is a group of its own."""
    file = item.nodeid.partition("::")[0]
    if file.startswith("tests/e2e/"):
        is_shared = bool(_SERVERS.intersection(getattr(item, "fixturenames", ())))
        return (0, "servers") if is_shared else (1, file)
    folder = "/".join(file.split("/")[:2])
    if folder in _FOLDERS:
        return 2, folder
    return (4, "") if file.endswith(_ALONE) else (3, file)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command line sends the log to standard error, which is another one in the next test."""
    root, ours = logging.getLogger(), logging.getLogger("millstream")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
