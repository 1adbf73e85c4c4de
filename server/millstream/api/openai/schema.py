"""The body of POST /v1/chat/completions, checked once at the door.

Rule: a field is honoured or refused with 400 that names it. Fields of the OpenAI API that are not
implemented are refused unless they ask for what happens anyway (`n: 1`, `logprobs: false`).
Source: the OpenAI API reference, "Create chat completion"; `top_k` as in vLLM and TGI.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from millstream.errors import InvalidRequest

MAX_STOPS = 16
MAX_STOP_LENGTH = 1000
MAX_MESSAGES = 10_000

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "response_format": ({"type": "text"},),
}
"""Values of fields that are not implemented, but ask for what happens without them."""

UNSUPPORTED = frozenset(
    {
        *_NEUTRAL,
        "audio",
        "function_call",
        "functions",
        "metadata",
        "modalities",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "tool_choice",
        "verbosity",
        "web_search_options",
    }
)
"""Fields of the OpenAI API that this server knows and does not implement."""


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TextPart(_Body):
    type: Literal["text"]
    text: str


def _content_tag(value: Any) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[TextPart], Tag("parts")],
    Discriminator(_content_tag),
]


class Function(_Body):
    name: str
    arguments: str


class ToolCall(_Body):
    """A call the assistant made in an earlier turn. `index` is left by clients that copy deltas."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function
    index: int | None = None


class Message(_Body):
    """One turn. Fields that SDKs write as null when they echo an answer are accepted as null."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(None, max_length=0)

    def to_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: text content, arguments as an object.

        Raises InvalidRequest if the arguments of a tool call are not JSON.
        """
        content = self.content
        if isinstance(content, list):
            content = "\n".join(part.text for part in content)
        # Templates know `system`; `developer` is OpenAI's newer name for the same thing.
        role = "system" if self.role == "developer" else self.role
        message: dict[str, Any] = {"role": role, "content": content or ""}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            message["tool_calls"] = [_template_call(call) for call in self.tool_calls]
        return message


def _template_call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError as error:
        raise InvalidRequest(
            f"the arguments of tool call {call.function.name} are not JSON", param="messages"
        ) from error
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


class StreamOptions(_Body):
    include_usage: bool = False


StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


def _stop_tag(value: Any) -> str:
    return "list" if isinstance(value, list) else "string"


class ChatRequest(_Body):
    """Every accepted field. None means: not given, take the model's or the server's default."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: (
        Annotated[
            Annotated[StopString, Tag("string")]
            | Annotated[list[StopString], Field(max_length=MAX_STOPS), Tag("list")],
            Discriminator(_stop_tag),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def parse_chat_request(body: dict[str, Any]) -> ChatRequest:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    fields = {name: value for name, value in body.items() if not _is_neutral(name, value)}
    for name in fields:
        if name in UNSUPPORTED:
            raise InvalidRequest(
                f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
        if name not in ChatRequest.model_fields:
            raise InvalidRequest(
                f"{name} is not a field of this API", param=name, code="unknown_parameter"
            )
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)[0]) from error
    _check_together(request)
    return request


def _is_neutral(name: str, value: Any) -> bool:
    if name not in UNSUPPORTED:
        return False
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in _NEUTRAL.get(name, ())
    )


def _check_together(request: ChatRequest) -> None:
    both = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(both) > 1:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens mean the same and differ; send one of them",
            param="max_tokens",
        )
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options is only allowed with stream", param="stream_options")


def _invalid(error: ErrorDetails) -> InvalidRequest:
    path = ""
    for part in error["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in ("text", "parts", "string", "list") or path.endswith("]"):
            path += f".{part}" if path else part
    return InvalidRequest(f"{path}: {error['msg']}", param=path)
