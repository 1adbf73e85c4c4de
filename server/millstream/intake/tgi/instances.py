"""The bodies in which clouds ask: SageMaker's, of three dialects, and Vertex AI's, of several
requests.

Source: TGI 3.3.6, `router/src/sagemaker.rs` and `router/src/vertex.rs`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.intake.requests.completion import CompletionRequest, parse_completion_request
from millstream.intake.strict_body import Body, invalid
from millstream.intake.tgi.request import (
    TextGeneration,
    parse_compatible_request,
    parse_generate_request,
)

MAX_INSTANCES = 1024


class VertexBody(Body):
    """Vertex's body. Each instance has `inputs` and `parameters`, or is a chat request."""

    instances: Annotated[
        list[dict[str, Any]], Field(min_length=1, max_length=MAX_INSTANCES, fail_fast=True)
    ]


def parse_invocation(body: dict[str, Any]) -> TextGeneration | ChatRequest | CompletionRequest:
    """The request of POST /invocations: the field that has the prompt says which. Raises
    InvalidRequest."""
    if "inputs" in body:
        return parse_compatible_request(body)
    if "messages" in body:
        return parse_chat_request(body)
    if "prompt" in body:
        return parse_completion_request(body)
    raise InvalidRequest("send `inputs`, `messages` or `prompt`", param="inputs")


def parse_vertex_request(body: dict[str, Any]) -> list[TextGeneration | ChatRequest]:
    """The requests of POST /vertex. Raises InvalidRequest whose `param` has the instance."""
    try:
        fields = VertexBody.model_validate(body)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
    return [_instance(number, instance) for number, instance in enumerate(fields.instances)]


def _instance(number: int, instance: dict[str, Any]) -> TextGeneration | ChatRequest:
    try:
        if "inputs" in instance:
            return parse_generate_request(instance)
        chat = parse_chat_request(instance)
        if chat.stream:
            raise InvalidRequest("stream: a prediction is whole", param="stream")
        if chat.num_choices > 1:
            raise InvalidRequest("n: a prediction is one text", param="n")
    except InvalidRequest as error:
        raise in_instance(error, number) from error
    return chat


def in_instance(error: InvalidRequest, number: int) -> InvalidRequest:
    """A refusal that says in which instance."""
    error.message = f"instances[{number}]: {error.message}"
    error.param = f"instances[{number}]" + (f".{error.param}" if error.param else "")
    return error
