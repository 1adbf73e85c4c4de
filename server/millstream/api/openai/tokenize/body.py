"""The bodies of POST /tokenize and POST /detokenize, in vLLM's shapes.

Rule: a conversation is checked as that of a chat request is, by the same code, and has only those
fields of one that the prompt depends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError, create_model

from millstream.errors import InvalidRequest
from millstream.intake.fields.refused import without_unsupported
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request
from millstream.intake.sampling_fields import TokenId
from millstream.intake.strict_body import Body, invalid

T = TypeVar("T", bound=Body)


class TokenizeOptions(Body):
    """return_token_strs: the tokens also as the vocabulary writes them. model: any name."""

    model: str | None = None
    return_token_strs: bool | None = None


class TokenizeText(TokenizeOptions):
    """add_special_tokens: also those that the tokenizer puts around a text, like a first one."""

    prompt: str
    add_special_tokens: bool | None = None


CHAT_FIELDS = (
    "messages",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
    "reasoning_effort",
    "reasoning",
    "tools",
    "tool_choice",
)
"""Those of a chat request that its prompt depends on."""

ConversationBody: Any = create_model(
    "TokenizeConversation",
    __base__=TokenizeOptions,
    **{  # type: ignore[call-overload]
        name: (ChatRequest.model_fields[name].annotation, ChatRequest.model_fields[name])
        for name in CHAT_FIELDS
    },
)
"""For the API document, which wants the fields as a type."""


@dataclass(frozen=True, slots=True)
class TokenizeConversation:
    """chat: as if it were to be answered."""

    chat: ChatRequest
    return_token_strs: bool | None


class DetokenizeRequest(Body):
    """tokens: ids of the model's vocabulary."""

    tokens: list[TokenId]
    model: str | None = None


def parse_tokenize_request(body: dict[str, Any]) -> TokenizeText | TokenizeConversation:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    if ("prompt" in body) == ("messages" in body):
        raise InvalidRequest("send either a prompt or messages", param="prompt")
    if "prompt" in body:
        return _checked(TokenizeText, body)
    fields = without_unsupported(body, frozenset({*CHAT_FIELDS, *TokenizeOptions.model_fields}))
    options = _checked(
        TokenizeOptions, {n: v for n, v in fields.items() if n in TokenizeOptions.model_fields}
    )
    chat = parse_chat_request({n: v for n, v in fields.items() if n in CHAT_FIELDS})
    return TokenizeConversation(chat, options.return_token_strs)


def parse_detokenize_request(body: dict[str, Any]) -> DetokenizeRequest:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    return _checked(DetokenizeRequest, body)


def _checked(schema: type[T], body: dict[str, Any]) -> T:
    fields = without_unsupported(body, frozenset(schema.model_fields))
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
