"""From a body to a checked chat request: each field by itself, then those that go together."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.fields.message_checks import check_messages
from millstream.intake.fields.refused import without_unsupported
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.strict_body import invalid

_FIELDS = frozenset(ChatRequest.model_fields)


def parse_chat_request(body: dict[str, Any]) -> ChatRequest:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    fields = without_unsupported(body, _FIELDS)
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
    _check_lengths(request)
    _check_reports(request)
    _check_turn(request)
    check_messages(request.messages)
    _check_reasoning(request)
    request.check_tools()
    _check_tools_fit(request)
    request.check_format()
    return request


def _check_lengths(request: ChatRequest) -> None:
    both = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(both) > 1:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens mean the same and differ; send one of them",
            param="max_tokens",
        )
    request.check_min_tokens(request.wanted_tokens)


def _check_reports(request: ChatRequest) -> None:
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    request.check_delivery(prompt_logprobs=request.prompt_logprobs)


def _check_turn(request: ChatRequest) -> None:
    if not request.continue_final_message:
        return
    if request.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )
    if not request.ends_in_assistant_text:
        raise InvalidRequest(
            "continue_final_message needs the last message to be text of the assistant",
            param="continue_final_message",
        )


def _check_reasoning(request: ChatRequest) -> None:
    request.check_effort()
    if request.include_reasoning is False and request.skip_special_tokens is False:
        raise InvalidRequest(
            "include_reasoning: false needs reasoning to be read, which skip_special_tokens: false "
            "prevents",
            param="include_reasoning",
        )


def _check_tools_fit(request: ChatRequest) -> None:
    """Raises InvalidRequest for fields that leave no calls to read."""
    if not request.offered_tools:
        return
    if request.skip_special_tokens is False:
        raise InvalidRequest(
            "skip_special_tokens: false shows the text as it is, with calls unread; not with tools",
            param="skip_special_tokens",
        )
