"""How far a start is, on its way from whoever builds the runner to the client."""

from __future__ import annotations

from collections.abc import Callable

from millstream.runtime.messages import FromEngine, Loading


class StartReports:
    """What says how far a start is; told to the client while an engine is being built."""

    def __init__(self) -> None:
        self._send: Callable[[FromEngine], None] | None = None

    def connect(self, send: Callable[[FromEngine], None] | None) -> None:
        """Tells it here from now on; None ends that."""
        self._send = send

    def __call__(self, step: str, fraction: float | None = None) -> None:
        if self._send is not None:
            self._send(Loading(step, fraction))
