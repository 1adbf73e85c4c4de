"""The fields of Text Generation Inference's requests, and what is said of a wrong one.

Source: TGI 3.3.6, `router/src/lib.rs` and `router/src/validation.rs`. Wider here: `top_p` and
`typical_p` may be 1, which keeps all; there may be more stop strings and alternatives.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator
from pydantic_core import ErrorDetails

from millstream.errors import InvalidRequest
from millstream.intake.fields.delivery import MAX_SECONDS
from millstream.intake.fields.response_format import ResponseFormat
from millstream.intake.sampling_fields import (
    MAX_CHOICES,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
    StopString,
)
from millstream.intake.strict_body import Body, invalid, whole_number

MAX_TEMPERATURE = 100.0

HINTS = frozenset({"dont_load_model", "retry_on_error", "use_cache", "use_gpu", "wait_for_model"})
"""What the clients of Hugging Face's hosted API put into `options`: it is about that service."""
_GRAMMARS = ("json", "json_object", "regex", "json_schema")
_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")
_WORDS = {
    "best_of": f"must be > 0 and <= {MAX_CHOICES}",
    "temperature": f"must be strictly positive and <= {MAX_TEMPERATURE:g}",
    "repetition_penalty": "must be >= 0.01 and <= 100",
    "frequency_penalty": "must be >= -2.0 and <= 2.0",
    "top_k": "must be strictly positive",
    "top_p": "must be > 0.0 and <= 1.0",
    "typical_p": "must be > 0.0 and <= 1.0",
    "max_new_tokens": "must be strictly positive",
    "truncate": "must be strictly positive",
    "seed": "must be >= 0 and < 2**64",
    "top_n_tokens": f"must be >= 0 and <= {MAX_TOP_LOGPROBS}",
    "max_time": f"must be strictly positive and <= {MAX_SECONDS:g}",
}
"""Parameter -> what is said of a value outside of its range."""


class GenerateParameters(Body):
    """TGI's parameters. stop_sequences, max_time and num_return_sequences are older clients' words
    for `stop`, for a limit of seconds, and for the one answer that is shown."""

    _whole = field_validator("*", mode="before")(whole_number)

    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(None, gt=0, le=MAX_TEMPERATURE)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    do_sample: bool | None = None
    max_new_tokens: int | None = Field(None, ge=1)
    return_full_text: bool | None = None
    stop: list[StopString] | None = Field(None, max_length=MAX_STOPS)
    stop_sequences: list[StopString] | None = Field(None, max_length=MAX_STOPS)
    truncate: int | None = Field(None, ge=1)
    watermark: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    seed: int | None = Field(None, ge=0, lt=2**64)
    top_n_tokens: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    grammar: ResponseFormat | None = None
    adapter_id: str | None = None
    max_time: float | None = Field(None, gt=0, le=MAX_SECONDS)
    num_return_sequences: int | None = Field(None, ge=1)

    @property
    def stops(self) -> list[str] | None:
        return self.stop if self.stop is not None else self.stop_sequences

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn: `do_sample`, or anything that only says how to draw."""
        shaped = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return bool(self.do_sample) or any(value is not None for value in shaped)

    def check(self, *, is_streamed: bool) -> None:
        """Raises InvalidRequest for what this server does not do, and what does not go together."""
        if self.watermark:
            raise refusal("watermark", "this server does not watermark what it generates")
        if self.adapter_id is not None:
            raise refusal("adapter_id", "this server has no adapters")
        if self.num_return_sequences not in (None, 1):
            raise refusal("num_return_sequences", "one sequence is returned; see `best_of`")
        if self.stop is not None and self.stop_sequences is not None:
            raise refusal("stop_sequences", "`stop` says it already; send one of them")
        if self.grammar is not None and self.grammar.type not in _GRAMMARS:
            raise refusal("grammar", f"`type` must be one of {', '.join(_GRAMMARS)}")
        if (self.best_of or 1) > 1:
            self._check_best_of(is_streamed=is_streamed)
        if self.decoder_input_details and is_streamed:
            raise refusal(
                "decoder_input_details",
                "`decoder_input_details` == true is not supported when streaming tokens",
            )

    def _check_best_of(self, *, is_streamed: bool) -> None:
        if is_streamed:
            raise refusal("best_of", "`best_of` != 1 is not supported when streaming tokens")
        if not self.draws:
            raise refusal("best_of", "you must use sampling when `best_of` is > 1")
        if self.seed is not None:
            raise refusal("seed", "`seed` must not be set when `best_of` > 1")


class GenerateBody(Body):
    """The body of every route that takes `inputs`. model: any name. options: hints of clients."""

    inputs: str
    parameters: GenerateParameters | None = None
    stream: bool | None = None
    model: str | None = None
    options: dict[str, Any] | None = None


def refusal(name: str, reason: str) -> InvalidRequest:
    """The refusal of a parameter. Its message names it."""
    message = reason if f"`{name}`" in reason else f"`{name}`: {reason}"
    return InvalidRequest(message, param=f"parameters.{name}")


def refusal_of(error: ErrorDetails) -> InvalidRequest:
    """What pydantic found, in TGI's words where it has some."""
    path = error["loc"]
    if len(path) > 1 and path[0] == "parameters":
        name = str(path[1])
        if error["type"] == "extra_forbidden":
            return refusal(name, f"`{name}` is not a parameter of this API")
        if error["type"] in _RANGES and name in _WORDS:
            return refusal(name, f"`{name}` {_WORDS[name]}. Given: {error['input']}")
        if error["type"] == "too_long":
            context = error.get("ctx", {})
            text = f"`{name}` supports up to {MAX_STOPS} stop sequences"
            return refusal(name, f"{text}. Given: {context.get('actual_length') or 'more'}")
    return invalid(error)
