"""From the engine's events to what the client reads: text, finish reason, token counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from millstream.core.request import FinishReason, TokenEvent
from millstream.text.detokenizer import Detokenizer
from millstream.text.stops import StopMatcher


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text, possibly empty; `finish_reason` on the last one."""

    text: str
    finish_reason: FinishReason | None = None


class TextAssembler:
    """Turns one request's tokens into text. The same for streamed and whole answers."""

    def __init__(
        self, tokenizer: Tokenizer, *, prompt: Sequence[int], stops: Sequence[str]
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stops = StopMatcher(stops)
        self.num_prompt = len(prompt)
        self.num_generated = 0
        self.num_cached = 0

    def push(self, events: Iterable[TokenEvent]) -> TextDelta:
        """The text of these events; everything they bring is one delta.

        A stop string ends the answer before the engine knows; the caller then closes the stream.
        """
        pieces: list[str] = []
        for event in events:
            self.num_cached = event.num_cached
            tokens, reason = event.token_ids, event.finish_reason
            # The token that ends a turn is counted, but it is no text.
            shown = len(tokens) - (reason == "stop")
            for index, token in enumerate(tokens):
                self.num_generated += 1
                if index < shown:
                    pieces.append(self._stops.push(self._detokenizer.push(token)))
                if self._stops.is_stopped:
                    return TextDelta("".join(pieces), "stop")
            if reason is not None:
                pieces.append(self._stops.push(self._detokenizer.flush()))
                if not self._stops.is_stopped:
                    pieces.append(self._stops.flush())
                    return TextDelta("".join(pieces), reason)
                return TextDelta("".join(pieces), "stop")
        return TextDelta("".join(pieces))
