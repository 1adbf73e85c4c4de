"""The server as `millstream serve` composes it, with the engine of `wire_engine.py`.

Run by `wire.py`: python wire_server.py CONTROL_ENDPOINT TOKEN_ID,... NAME=VALUE...

Intentional: one name of the composition root is replaced and nothing else is touched, so what
is measured is the code that runs in production.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from millstream.runtime import host
from millstream.runtime.host import ProcessHost


class FakeEngineHost(ProcessHost):
    """Starts `wire_engine.py` instead of the command it is given."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        engine = str(Path(__file__).with_name("wire_engine.py"))
        super().__init__([command[0], engine, *sys.argv[1:3]], environment=environment)


if __name__ == "__main__":
    # Before the parts that import it are imported.
    host.ProcessHost = FakeEngineHost  # type: ignore[misc]
    from millstream import server_process
    from millstream.settings import Settings

    server_process.run(Settings(**dict(pair.split("=", 1) for pair in sys.argv[3:])))
