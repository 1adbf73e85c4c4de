"""A generation in TGI's shape, as events ready for the socket or as one body. Pure.

Rules: an event for each token, with its text as soon as that is known to be shown; the last one
has the whole text and ends the stream, which has no `[DONE]`. The texts of all events, joined, are
the whole: special tokens and those of a stop string are told without text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from millstream.api.openai.completions.text_logprobs import AnsweredPrompt, prompt_entries
from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.answer_builder import AnswerBuilder
from millstream.api.openai.generate.logprob_shapes import finite
from millstream.api.tgi.shapes import FinishReason
from millstream.api.wire.tgi_errors import tgi_error_event
from millstream.errors import MillstreamError
from millstream.intake.engine_request import choice_seed
from millstream.intake.tgi.request import TextGeneration
from millstream.text.assembler import TextDelta
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary


class GenerationBuilder(AnswerBuilder):
    """Makes the events or the body of one request.

    num_generated: tokens of the answer that the body is about.
    """

    def __init__(
        self,
        identity: Identity,
        fields: TextGeneration,
        *,
        asked: AnsweredPrompt,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__(identity, chunk_kind="", report=REPORT, vocabulary=vocabulary)
        self._fields = fields
        self._asked = asked
        self._texts: list[str] = []
        self._num_events = 0
        self.num_generated = 0

    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        """The events of a delta's tokens."""
        self.num_generated += len(delta.token_ids)
        self._texts.append(delta.text)
        events = [self._event(entry) for entry in delta.logprobs]
        if delta.finish_reason is not None:
            self.finish_reasons[index] = delta.finish_reason
            events[-1] |= self._ending(delta)
        return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)

    def whole(self, choices: Sequence[WholeChoice], usage: dict[str, Any]) -> Any:
        """The body: the most probable one of the choices by the mean of its log probabilities."""
        for index, choice in enumerate(choices):
            assert choice.finish_reason is not None, "told before it ended"
            self.finish_reasons[index] = choice.finish_reason
        best = max(range(len(choices)), key=lambda index: _mean(choices[index].logprobs))
        self.num_generated = len(choices[best].token_ids)
        body: dict[str, Any] = {"generated_text": self._text(choices[best].said.content)}
        if self._fields.details:
            body["details"] = self._details(best, choices[best])
            if len(choices) > 1:
                body["details"]["best_of_sequences"] = [
                    {"generated_text": self._text(choice.said.content)}
                    | self._details(index, choice)
                    for index, choice in enumerate(choices)
                    if index != best
                ]
        return [body] if self._fields.is_listed else body

    def failure(self, error: MillstreamError) -> bytes:
        """The last event of a stream that failed after it began."""
        return tgi_error_event(error)

    def end(self, usage: dict[str, Any]) -> bytes:
        """The end mark, which there is none of: the last token's event is the end."""
        return b""

    def _event(self, entry: TextLogprob) -> dict[str, Any]:
        self._num_events += 1
        event: dict[str, Any] = {"index": self._num_events, "token": self._token(entry)}
        if self._fields.top_n:
            event["top_tokens"] = self._top(entry)
        return event | {"generated_text": None, "details": None}

    def _ending(self, delta: TextDelta) -> dict[str, Any]:
        """What the last event has beside its token."""
        details = None
        if self._fields.details:
            details = {
                "finish_reason": _reason(delta.finish_reason, delta.stop_reason),
                "generated_tokens": self.num_generated,
                "seed": self._seed(0),
                "input_length": len(self._asked.prompt.token_ids),
            }
        return {"generated_text": self._text("".join(self._texts)), "details": details}

    def _text(self, content: str) -> str:
        return self._fields.inputs + content if self._fields.full_text else content

    def _details(self, index: int, choice: WholeChoice) -> dict[str, Any]:
        is_asked = self._fields.prompt_logprobs is not None
        details: dict[str, Any] = {
            "finish_reason": _reason(choice.finish_reason, choice.stop_reason),
            "generated_tokens": len(choice.token_ids),
            "seed": self._seed(index),
            "prefill": self._prefill() if is_asked else [],
            "tokens": [self._token(entry) for entry in choice.logprobs],
        }
        if self._fields.top_n:
            details["top_tokens"] = [self._top(entry) for entry in choice.logprobs]
        return details

    def _seed(self, index: int) -> int | None:
        """With which a request makes this choice's text; None if nothing was drawn."""
        seed = self._fields.seed
        return choice_seed(seed, index) if seed is not None and self._fields.temperature else None

    def _prefill(self) -> list[dict[str, Any]]:
        return [
            {
                "id": entry.token_id,
                "text": entry.text or self._vocabulary[entry.token_id].text,
                "logprob": None if entry.score is None else finite(entry.score.logprob),
            }
            for entry in prompt_entries(self._asked)
        ]

    def _token(self, entry: TextLogprob) -> dict[str, Any]:
        score = entry.score
        return {
            "id": score.token_id,
            "text": entry.text,
            "logprob": finite(score.logprob),
            "special": self._vocabulary.is_special(score.token_id),
        }

    def _top(self, entry: TextLogprob) -> list[dict[str, Any]]:
        return [
            {
                "id": token_id,
                "text": self._vocabulary[token_id].text,
                "logprob": finite(number),
                "special": self._vocabulary.is_special(token_id),
            }
            for token_id, number in entry.score.top
        ]


REPORT = Report(logprobs=True)
"""Every token has its log probability."""


def _reason(reason: str | None, stop_reason: str | int | None) -> FinishReason:
    if reason == "length":
        return "length"
    return "stop_sequence" if isinstance(stop_reason, str) else "eos_token"


def _mean(tokens: Iterable[TextLogprob]) -> float:
    numbers = [finite(token.score.logprob) for token in tokens]
    return sum(numbers) / max(len(numbers), 1)
