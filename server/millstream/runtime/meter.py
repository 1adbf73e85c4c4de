"""What a stream tells whoever counts what its request costs."""

from __future__ import annotations

from typing import Protocol

from millstream.core.request import Request
from millstream.metrics.request_metrics import RequestLife


class Meter(Protocol):
    """Counts what one request costs whoever has asked."""

    def begin(self, request: Request) -> Request:
        """The request as it may be made. Raises MillstreamError if it may not."""

    def end(self, life: RequestLife) -> None:
        """The request's place was given back."""
