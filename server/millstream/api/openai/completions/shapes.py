"""What text completions look like: shapes for the API document and the tests."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from millstream.api.openai.generate.shared_shapes import PromptLogprob, Usage
from millstream.api.wire.closed_shapes import closed

FinishReason = Literal["stop", "length"]


@closed
class TextLogprobs(TypedDict):
    """One entry for each token; null for the first one of a prompt, which nothing predicts."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


@closed
class TextChoice(TypedDict):
    """index: of the prompt, times `n`, and the number of the answer to it. What is null was not
    asked for."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    token_ids: list[int] | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None


@closed
class Completion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


@closed
class TextChunkChoice(TypedDict):
    """stop_reason comes with the finish reason, prompt_token_ids with the first event."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: NotRequired[str | int | None]
    token_ids: NotRequired[list[int]]
    prompt_token_ids: NotRequired[list[int]]


@closed
class StreamedToken(TypedDict):
    """TGI's view of the same event: its last token, with all of its text."""

    id: int | None
    text: str
    logprob: float | None
    special: bool


@closed
class CompletionChunk(TypedDict):
    """The data of one event. choices is empty in the last one, if usage was asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChunkChoice]
    token: NotRequired[StreamedToken]
    usage: NotRequired[Usage | None]
