"""What TGI's routes answer: shapes for the API document and the tests.

Source: TGI 3.3.6, `docs/openapi.json`.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed

FinishReason = Literal["length", "eos_token", "stop_sequence"]


@closed
class GeneratedToken(TypedDict):
    """text: what the token adds to the answer's; a token of a stop string and a special one add
    none. logprob: by the model's own distribution."""

    id: int
    text: str
    logprob: float
    special: bool


@closed
class PrefillToken(TypedDict):
    """logprob: null for the first one, which nothing predicts."""

    id: int
    text: str
    logprob: float | None


@closed
class BestOfSequence(TypedDict):
    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GeneratedToken]
    top_tokens: NotRequired[list[list[GeneratedToken]]]


@closed
class Details(TypedDict):
    """seed: with which a request makes the same text; null if nothing is drawn."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GeneratedToken]
    best_of_sequences: NotRequired[list[BestOfSequence]]
    top_tokens: NotRequired[list[list[GeneratedToken]]]


@closed
class Generated(TypedDict):
    generated_text: str
    details: NotRequired[Details]


@closed
class StreamDetails(TypedDict):
    """input_length: tokens of the prompt."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


@closed
class StreamedGeneration(TypedDict):
    """The data of one event, of which there is one for each token. index: from 1 on.

    generated_text: the whole, in the last event; details with it, if they were asked for.
    """

    index: int
    token: GeneratedToken
    top_tokens: NotRequired[list[GeneratedToken]]
    generated_text: str | None
    details: StreamDetails | None


@closed
class PlacedToken(TypedDict):
    """A token of a text. start, stop: characters of the text; text: what is between them."""

    id: int
    text: str
    start: int
    stop: int


@closed
class ChatTokens(TypedDict):
    """templated_text: the prompt as the chat template writes it."""

    tokenize_response: list[PlacedToken]
    templated_text: str


@closed
class Predictions(TypedDict):
    """A text for each instance, in their order."""

    predictions: list[str]


@closed
class Info(TypedDict):
    """model_sha: the revision that was asked for. max_client_batch_size: prompts of one request
    to /v1/completions."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: Literal["text-generation"]
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: None
    docker_label: None
