"""A started generation, and the headers in which TGI reports what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from starlette.responses import Response

from millstream.api.described.route import EVENTS
from millstream.api.openai.generate.started_answer import StartedAnswer
from millstream.api.tgi.builder import REPORT, GenerationBuilder
from millstream.generation.choices import Choice
from millstream.intake.tgi.request import TextGeneration


def compute_headers(fields: TextGeneration, *, device: str) -> dict[str, str]:
    """What is known before the answer is. device: the engine's."""
    headers = {
        "x-compute-type": device.partition(":")[0],
        "x-compute-characters": str(len(fields.inputs)),
    }
    # Old versions of huggingface.js compare the whole of it, and do not know a charset.
    return headers | ({"content-type": EVENTS} if fields.stream else {})


class GenerationAnswer(StartedAnswer):
    """The choices of one request, and what makes TGI's answer out of them."""

    def __init__(
        self,
        choices: Sequence[Choice],
        builder: GenerationBuilder,
        *,
        arrived: float,
        headers: Mapping[str, str],
        unenforced: Sequence[str] = (),
    ) -> None:
        """arrived: when the request did, by `time.monotonic()`. headers: `compute_headers()`."""
        super().__init__(choices, builder, report=REPORT, unenforced=unenforced)
        self.headers |= headers
        self._first = choices[0]
        self._generation = builder
        self._arrived = arrived
        self._started = time.monotonic()

    async def whole(self) -> Response:
        """The one response with everything. Raises the failure that ended a choice."""
        response = await super().whole()
        response.headers.update(self._costs())
        return response

    def _costs(self) -> dict[str, str]:
        """Times in milliseconds, but for the first one, and tokens of the answer that is told."""
        total = time.monotonic() - self._arrived
        validation = self._started - self._arrived
        queue = self._first.stream.queue_seconds or 0.0
        inference = max(total - validation - queue, 0.0)
        num_generated = self._generation.num_generated
        times = {
            "x-total-time": total,
            "x-validation-time": validation,
            "x-queue-time": queue,
            "x-inference-time": inference,
            "x-time-per-token": inference / max(num_generated, 1),
        }
        return {
            "x-compute-time": f"{total:.6f}",
            **{name: str(round(seconds * 1000)) for name, seconds in times.items()},
            "x-prompt-tokens": str(self._first.assembler.num_prompt),
            "x-generated-tokens": str(num_generated),
        }
