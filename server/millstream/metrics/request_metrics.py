"""What becomes of the requests of one server, however many engines it has had.

Rules:
1. A request is counted as started when the engine is sent it, and once more when its place is given
   back: as finished, failed or cancelled, so that started = finished + failed + cancelled + open.
2. What its reader got is what counts. A request that the engine has finished, and whose reader left
   before it read the end, is cancelled; one that ends at a stop string is finished.
3. A prompt is counted with its first token, and once however many answers it has: sums equal those
   of the usage that clients are told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from millstream.metrics.histogram import REQUEST_SECONDS, TOKEN_COUNTS, TOKEN_SECONDS, Histogram

READER_LEFT = "reader_left"
ASKED = "asked"


class RequestLife:
    """When what happened to one request, by `time.monotonic()`, and how much it brought.

    opened: it took its place. sent: the engine was sent it. queue_seconds: how long it waited
    there. is_leader: its prompt is not that of another one beside it.
    """

    __slots__ = (
        "first_token",
        "is_leader",
        "last_token",
        "max_tokens",
        "num_cached",
        "num_generated",
        "num_prompt",
        "opened",
        "queue_seconds",
        "sent",
    )

    def __init__(self) -> None:
        self.opened = time.monotonic()
        self.sent: float | None = None
        self.queue_seconds: float | None = None
        self.first_token: float | None = None
        self.last_token = 0.0
        self.num_prompt = self.num_cached = self.max_tokens = self.num_generated = 0
        self.is_leader = True


class RequestMetrics:
    """Counters and histograms. Counters never go back. For the event loop's thread.

    num_prompt_tokens, num_cached_tokens, num_generated_tokens: as clients are told. num_queried,
    num_hits: tokens that were looked for in the prefix cache, and found, for further answers too.
    finished: by finish reason. failed: by the error's code. cancelled: READER_LEFT or ASKED.
    """

    def __init__(self) -> None:
        self.num_started = 0
        self.finished: Counter[str] = Counter(stop=0, length=0)
        self.cancelled: Counter[str] = Counter({READER_LEFT: 0, ASKED: 0})
        self.failed: Counter[str] = Counter()
        self.num_prompt_tokens = self.num_cached_tokens = self.num_generated_tokens = 0
        self.num_queried = self.num_hits = 0
        self.first_token = Histogram(REQUEST_SECONDS)
        self.between_tokens = Histogram(TOKEN_SECONDS)
        self.preparation = Histogram(REQUEST_SECONDS)
        self.queue = Histogram(REQUEST_SECONDS)
        self.prefill = Histogram(REQUEST_SECONDS)
        self.decode = Histogram(REQUEST_SECONDS)
        self.inference = Histogram(REQUEST_SECONDS)
        self.duration = Histogram(REQUEST_SECONDS)
        self.per_token = Histogram(TOKEN_SECONDS)
        self.compilation = Histogram(REQUEST_SECONDS)
        self.prompt_tokens = Histogram(TOKEN_COUNTS)
        self.generated_tokens = Histogram(TOKEN_COUNTS)
        self.max_tokens = Histogram(TOKEN_COUNTS)

    @property
    def num_open(self) -> int:
        """Requests that the engine was sent, and that are not over."""
        num_over = self.finished.total() + self.failed.total() + self.cancelled.total()
        return self.num_started - num_over

    def on_sent(
        self, life: RequestLife, *, num_prompt: int, max_tokens: int, is_leader: bool
    ) -> None:
        """The engine has been sent a request."""
        life.sent = time.monotonic()
        life.num_prompt, life.max_tokens, life.is_leader = num_prompt, max_tokens, is_leader
        self.num_started += 1
        self.preparation.observe(life.sent - life.opened)

    def on_run(self, life: RequestLife, seconds: float) -> None:
        """A request has begun to run after it waited for so long."""
        life.queue_seconds = seconds
        self.queue.observe(seconds)

    def on_token(self, life: RequestLife, now: float, *, num_cached: int) -> None:
        """New tokens of a request have come from the engine at once. For each step and request."""
        if life.first_token is not None:
            self.between_tokens.observe(now - life.last_token)
        else:
            life.first_token, life.num_cached = now, num_cached
            self.first_token.observe(now - life.opened)
            self.num_queried += life.num_prompt
            self.num_hits += num_cached
            if life.is_leader:
                self.num_prompt_tokens += life.num_prompt
                self.num_cached_tokens += num_cached
        life.last_token = now

    def on_compiled(self, seconds: Iterable[float]) -> None:
        """Grammars have been compiled, each in so many seconds."""
        for each in seconds:
            self.compilation.observe(each)

    def on_finished(self, life: RequestLife, reason: str) -> None:
        """A request has finished, and its reader has been told."""
        self.finished[reason] += 1
        self.duration.observe(time.monotonic() - life.opened)
        self.prompt_tokens.observe(life.num_prompt)
        self.generated_tokens.observe(life.num_generated)
        self.max_tokens.observe(life.max_tokens)
        if life.first_token is None or life.sent is None:
            return
        prefill = max(life.first_token - life.sent - (life.queue_seconds or 0.0), 0.0)
        decode = life.last_token - life.first_token
        self.prefill.observe(prefill)
        self.decode.observe(decode)
        self.inference.observe(prefill + decode)
        self.per_token.observe((prefill + decode) / max(life.num_generated, 1))
