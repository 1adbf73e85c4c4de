"""What HTTP requests were answered, by route.

Rules: labels are bounded. A route is its template, never the path that a client wrote; what no
route took is NO_ROUTE; a method that nobody serves is OTHER. An answer over a WebSocket counts as
one of method WS, beside the connection itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from millstream.metrics.histogram import REQUEST_SECONDS, Histogram

NO_ROUTE = "none"
OTHER = "OTHER"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})


class HttpMetrics:
    """Counters and histograms. For the event loop's thread.

    responses: by method, route and status; None where the client left before any. seconds: by
    route. refused: by the error's code, requests that ended with an error before the engine was
    sent anything.
    refused_answers: those of them that asked for an answer.
    """

    def __init__(self) -> None:
        self.responses: Counter[tuple[str, str, int | None]] = Counter()
        self.seconds: defaultdict[str, Histogram] = defaultdict(_request_seconds)
        self.refused: Counter[str] = Counter()
        self.refused_answers: Counter[str] = Counter()

    def on_response(self, method: str, route: str, *, status: int | None, seconds: float) -> None:
        """A request has ended."""
        self.responses[method if method in _METHODS else OTHER, route, status] += 1
        self.seconds[route].observe(seconds)

    def on_refused(self, code: str, *, is_for_answer: bool) -> None:
        """A request has ended with an error, and the engine was sent nothing of it."""
        self.refused[code] += 1
        if is_for_answer:
            self.refused_answers[code] += 1


def _request_seconds() -> Histogram:
    return Histogram(REQUEST_SECONDS)
