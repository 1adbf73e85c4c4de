"""Shapes that the answers of several routes have in common."""

from __future__ import annotations

from typing_extensions import TypedDict

from millstream.api.wire.closed_shapes import closed


@closed
class PromptTokensDetails(TypedDict):
    """cached_tokens: tokens of the prompt that did not have to be computed."""

    cached_tokens: int


@closed
class CompletionTokensDetails(TypedDict):
    """reasoning_tokens: what the model thought, with the markers that open it."""

    reasoning_tokens: int


@closed
class Usage(TypedDict):
    """completion_tokens: of all choices, with the tokens that end a turn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


@closed
class PromptLogprob(TypedDict):
    logprob: float
    rank: int
    decoded_token: str
