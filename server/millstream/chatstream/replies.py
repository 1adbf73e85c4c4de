"""An answer on ChatStream's wire: after each token the whole text so far, and a delimiter.

Rules: whoever left, what was generated is kept; an answer that fails is cut, not ended, since this
wire has no word for failure and a reader takes a clean end for a whole answer.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from millstream.embedded.answer_stream import AnswerStream
from millstream.embedded.results import Delta

END = "<::EOS::>"
ID_HEADER = "X-ChatStream-Last-Generated-Message-Id"

Callback = Callable[[Request, str], Any]
Keep = Callable[[str], Awaitable[None]]
Replacements = Sequence[tuple[str, str]]


class BegunAnswer:
    """An answer whose first delta is there, so that it was refused before if it is at all."""

    def __init__(self, stream: AnswerStream, first: Delta | None) -> None:
        self.stream = stream
        self._first = first

    @classmethod
    async def begin(cls, stream: AnswerStream) -> BegunAnswer:
        """Waits for the first delta. Raises what refuses the request, or makes it fail."""
        return cls(stream, await anext(stream, None))

    async def texts(self, replacements: Replacements) -> AsyncGenerator[str, None]:
        """The whole text so far, whenever there is more of it."""
        text = shown = ""
        delta = self._first
        while delta is not None:
            text += delta.text
            is_last = delta.finish_reason is not None
            so_far = replaced(text, replacements, is_whole=is_last)
            if so_far != shown:
                shown = so_far
                yield shown
            delta = await anext(self.stream, None)


def replaced(text: str, replacements: Replacements, *, is_whole: bool) -> str:
    """The text with replacements; without an end that may become something to be replaced."""
    held = 0
    if not is_whole:
        lengths = [
            size
            for old, _ in replacements
            for size in range(1, len(old))
            if text.endswith(old[:size])
        ]
        held = max(lengths, default=0)
    text = text[: len(text) - held]
    for old, new in replacements:
        text = text.replace(old, new)
    return text


class TextReply(StreamingResponse):
    """Sends an answer, keeps it, and says how it ended."""

    def __init__(
        self,
        answer: BegunAnswer,
        *,
        replacements: Replacements,
        keep: Keep,
        tell: Callable[[str], Awaitable[None]],
        message_id: str,
    ) -> None:
        """keep: told the text that was generated. tell: told how it ended."""
        self._answer = answer
        self._replacements = replacements
        self._keep = keep
        self._tell = tell
        self._text = ""
        self._outcome = "client_disconnected_while_streaming"
        self._segments = self._send_all()
        headers = {ID_HEADER: message_id}
        super().__init__(self._segments, media_type="text/plain", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.stream.close()
            with anyio.CancelScope(shield=True):
                await self._segments.aclose()
                try:
                    await self._keep(self._text)
                finally:
                    await self._tell(self._outcome)

    async def _send_all(self) -> AsyncGenerator[str, None]:
        try:
            async for text in self._answer.texts(self._replacements):
                self._text = text
                yield text + END
        except Exception:
            self._outcome = "unknown_error_occurred_while_streaming"
            raise
        self._outcome = "success"


async def tell(callback: Callback | None, request: Request, message: str) -> None:
    """Calls the program's callback, which may be asynchronous."""
    result = None if callback is None else callback(request, message)
    if inspect.isawaitable(result):
        await result
