"""From the bodies that take `inputs` to the completion request that is computed.

Rules: everything is said explicitly, so that a model's recommended sampling changes nothing: with
TGI a request without parameters draws from the whole distribution, and one with parameters that
say nothing about drawing is greedy.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from pydantic import Field, ValidationError

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.intake.requests.completion import CompletionRequest
from millstream.intake.tgi.parameters import (
    HINTS,
    MAX_TEMPERATURE,
    GenerateBody,
    GenerateParameters,
    refusal,
    refusal_of,
)

_SEED_BITS = 53
"""Seeds that are chosen for a client are exact in JavaScript."""
_UNLIMITED = 2**31
_WORDS = {
    "prompt": "inputs",
    "max_tokens": "parameters.max_new_tokens",
    "n": "parameters.best_of",
}
"""What a completion request calls a field -> its path here."""
_DEFAULTS = GenerateParameters.model_validate({"do_sample": True})


class TextGeneration(CompletionRequest):
    """A completion request with what TGI reports of it.

    details, top_n: what to report. full_text: the answer begins with the prompt. is_listed: the
    body of the answer is a list of one. arrived: when, by `time.monotonic()`.
    """

    temperature: float | None = Field(None, ge=0, le=MAX_TEMPERATURE)
    details: bool = False
    top_n: int = 0
    truncate: int | None = None
    full_text: bool = False
    is_listed: bool = False
    arrived: float = 0.0

    @property
    def inputs(self) -> str:
        """The prompt as it was sent."""
        assert isinstance(self.prompt, str), "made of inputs"
        return self.prompt

    @property
    def wanted_tokens(self) -> int:
        return self.max_tokens or _UNLIMITED

    @property
    def kept_tokens(self) -> int | None:
        return self.truncate

    @property
    def scores_stop(self) -> bool:
        """Every token is reported, those of a stop string without text."""
        return True

    def check_fit(self, *, num_prompt: int, max_context: int) -> None:
        """Raises InvalidRequest for an answer that would be cut by the context."""
        if self.max_tokens is not None and num_prompt + self.max_tokens > max_context:
            raise refusal(
                "max_new_tokens",
                f"`inputs` tokens + `max_new_tokens` must be <= {max_context}. "
                f"Given: {num_prompt} `inputs` tokens and {self.max_tokens} `max_new_tokens`",
            )

    def reword(self, error: InvalidRequest) -> None:
        """Gives a refusal the words of the body that the client sent."""
        if isinstance(error, ContextTooLong) and error.limit is not None:
            error.message = (
                f"`inputs` must have less than {error.limit + 1} tokens. Given: {error.num_tokens}"
            )
        if error.param is not None:
            path = _path(error.param)
            error.message = error.message.replace(f"{error.param}:", f"{path}:")
            error.param = path


def parse_generate_request(body: dict[str, Any]) -> TextGeneration:
    """The request of POST /generate. Raises InvalidRequest, as all that parse do here."""
    return _request(body, is_streamed=False, route="/generate")


def parse_stream_request(body: dict[str, Any]) -> TextGeneration:
    """The request of POST /generate_stream."""
    return _request(body, is_streamed=True, route="/generate_stream")


def parse_compatible_request(body: dict[str, Any]) -> TextGeneration:
    """The request of POST /, where `stream` decides, and the prompt is part of the answer unless
    the request says otherwise."""
    return _request(body)


def _request(
    body: dict[str, Any], *, is_streamed: bool | None = None, route: str = "/"
) -> TextGeneration:
    """is_streamed: what the route does; None if the body decides."""
    arrived = time.monotonic()
    try:
        fields = GenerateBody.model_validate(body)
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False)[0]) from error
    _check(fields)
    if fields.stream is not None and is_streamed not in (None, fields.stream):
        raise InvalidRequest(f"stream: {route} does it its own way; POST / obeys", param="stream")
    stream = bool(fields.stream) if is_streamed is None else is_streamed
    parameters = fields.parameters or _DEFAULTS
    parameters.check(is_streamed=stream)
    full_text = parameters.return_full_text
    try:
        request = TextGeneration(
            **_completion(fields.inputs, parameters),
            stream=stream,
            full_text=is_streamed is None if full_text is None else full_text,
            is_listed=is_streamed is None,
            arrived=arrived,
        )
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False)[0]) from error
    try:
        request.check_format()
    except InvalidRequest as error:
        request.reword(error)
        raise
    return request


def _check(fields: GenerateBody) -> None:
    if not fields.inputs:
        raise InvalidRequest("`inputs` cannot be empty", param="inputs")
    for name in sorted((fields.options or {}).keys() - HINTS):
        raise InvalidRequest(f"options.{name} is not an option of this API", param="options")


def _completion(inputs: str, parameters: GenerateParameters) -> dict[str, Any]:
    """The fields of the completion request."""
    given, draws = parameters, parameters.draws
    return {
        "prompt": inputs,
        "n": given.best_of or 1,
        "max_tokens": given.max_new_tokens,
        "temperature": (given.temperature or 1.0) if draws else 0.0,
        "top_k": given.top_k or 0,
        "top_p": given.top_p or 1.0,
        "typical_p": given.typical_p or 1.0,
        "min_p": 0.0,
        "repetition_penalty": given.repetition_penalty or 1.0,
        "frequency_penalty": given.frequency_penalty,
        "seed": secrets.randbits(_SEED_BITS) if given.seed is None else given.seed,
        "stop": given.stops,
        "grammar": given.grammar,
        "timeout": given.max_time,
        "logprobs": given.top_n_tokens or 0,
        "prompt_logprobs": 0 if given.decoder_input_details else None,
        "details": bool(given.details) or bool(given.decoder_input_details),
        "top_n": given.top_n_tokens or 0,
        "truncate": given.truncate,
    }


def _path(param: str) -> str:
    """The path here of a path in the completion request."""
    if param in _WORDS or param.startswith("parameters."):
        return _WORDS.get(param, param)
    return f"parameters.{param}"
