"""The client of an engine that the same process starts and looks after."""

from __future__ import annotations

from millstream.runtime.admission import LocalAdmission
from millstream.runtime.client import EngineClient
from millstream.runtime.host import EngineHost
from millstream.runtime.supervisor import Supervisor

STUCK_SHARE = 0.1
"""After which part of the time that a step may take an engine is called stuck."""


def supervised_client(
    host: EngineHost,
    *,
    max_running: int,
    max_waiting: int,
    max_waiting_tokens: int | None = None,
    max_answer_tokens: int | None = None,
    max_prompt_tokens: int | None = None,
    engine_timeout: float,
    max_restarts: int | None = None,
) -> EngineClient:
    """A client whose engine `start()` starts in `host`.

    engine_timeout: seconds without a step after which the engine is restarted; after a part of them
    it is called stuck. max_restarts: in a row; None for any number.
    """
    return EngineClient(
        Supervisor(host, engine_timeout=engine_timeout, max_restarts=max_restarts),
        LocalAdmission(limit=max_running + max_waiting, max_waiting_tokens=max_waiting_tokens),
        max_answer_tokens=max_answer_tokens,
        max_prompt_tokens=max_prompt_tokens,
        stuck_seconds=engine_timeout * STUCK_SHARE,
    )
