"""The body of POST /v1/responses: each field by itself, then those that go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import PrivateAttr, ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.hints import check_hints, is_hint
from millstream.intake.known_fields import unknown_field
from millstream.intake.responses.chat_of_response import own_tools
from millstream.intake.responses.echo import echo
from millstream.intake.responses.items import Item, read_items
from millstream.intake.responses.response_fields import ResponseFields
from millstream.intake.responses.tool_choice import check_choice
from millstream.intake.responses.tools import read_tools
from millstream.intake.strict_body import invalid

_INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")
_UNSUPPORTED: dict[str, Any] = {
    "access_programs": None,
    "context_management": [],
    "image": None,
    "moderation": None,
    "prompt": None,
}
"""Known fields that would change the answer -> a value that asks for nothing, beside null."""


class ResponseRequest(ResponseFields):
    """A checked body."""

    _items: list[Item] = PrivateAttr(default_factory=list)

    @property
    def items(self) -> list[Item]:
        """The input, each item with its type and an id."""
        return self._items

    def echo(self) -> dict[str, Any]:
        """What the response repeats of its request."""
        return echo(self)


_FIELDS = frozenset(field.alias or name for name, field in ResponseFields.model_fields.items())


def parse_response_request(body: dict[str, Any]) -> ResponseRequest:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    check_hints("responses", body)
    try:
        request = ResponseRequest.model_validate(_without_unsupported(body))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
    for name in ("reasoning", "text", "stream_options"):
        check_hints("responses", body.get(name) or {}, under=f"{name}.")
    _check_together(request)
    _check_include(request.include_ or ())
    if request.tool_choice is not None:
        check_choice(request.tool_choice)
    read_tools(own_tools(request))
    request.items.extend(read_items(request.input if request.input is not None else ()))
    return request


def _without_unsupported(body: dict[str, Any]) -> dict[str, Any]:
    fields = {}
    for name, value in body.items():
        if name in _FIELDS:
            fields[name] = value
        elif name not in _UNSUPPORTED:
            raise unknown_field(name)
        elif value is not None and value != _UNSUPPORTED[name]:
            raise InvalidRequest(
                f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
    return fields


def _check_together(request: ResponseRequest) -> None:
    """Raises InvalidRequest for fields that exclude or need each other."""
    if request.previous_response_id is not None and request.conversation is not None:
        raise InvalidRequest(
            "previous_response_id and conversation exclude each other",
            param="previous_response_id",
        )
    if request.background and request.store is False:
        raise InvalidRequest("background needs store", param="background")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options is only allowed with stream", param="stream_options")
    if request.max_output_tokens is not None and request.max_output_tokens < (
        request.min_tokens or 0
    ):
        raise InvalidRequest(
            f"min_tokens is {request.min_tokens}, more than max_output_tokens, "
            f"{request.max_output_tokens}",
            param="min_tokens",
        )
    if request.skip_special_tokens is False and request.tools:
        raise InvalidRequest(
            "skip_special_tokens: false shows the text as it is, with calls unread; not with tools",
            param="skip_special_tokens",
        )
    has_past = request.previous_response_id is not None or request.conversation is not None
    if request.input is None and not has_past:
        raise InvalidRequest("input: Field required", param="input")
    if request.text is not None and request.text.format is not None:
        request.text.format.wanted("text.format")


def _check_include(given: Sequence[str]) -> None:
    for place, name in enumerate(given):
        if name not in _INCLUDED and not is_hint("responses", "include[]", name):
            path = f"include[{place}]"
            raise InvalidRequest(f"{path}: nothing of this name can be included", param=path)
