"""The bodies that the routes of chats take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, create_model

from millstream.errors import InvalidRequest
from millstream.intake.known_fields import checked_body
from millstream.intake.responses.request import ResponseRequest, parse_response_request
from millstream.intake.responses.response_fields import ResponseFields
from millstream.intake.strict_body import Body

_OF_THE_CHAT = ("conversation", "previous_response_id", "store")
"""Fields of a response that a chat says itself."""
_OF_ONE_MESSAGE = ("input", "stream", "stream_options", "background")
"""Fields that are no settings, since they are of one message."""
_PLACE = "input[0].content"


def _check_title(title: str) -> str:
    if not title.isprintable():
        raise ValueError("should be one line of letters that can be shown")
    return title


Title = Annotated[str, Field(max_length=500), AfterValidator(_check_title)]
Settings = dict[str, Any]


class NewChat(Body):
    """settings: fields of a response that every message has that does not say them itself."""

    title: Title | None = None
    settings: Settings | None = None


class ChatChanges(Body):
    """title: null for the first words. leaf: the response whose branch is shown from now on."""

    title: Title | None = None
    settings: Settings | None = None
    leaf: str | None = None


def _fields_without(*names: str) -> dict[str, Any]:
    fields = ResponseFields.model_fields
    return {name: (field.annotation, field) for name, field in fields.items() if name not in names}


RegenerateBody = create_model(
    "RegenerateBody",
    __base__=Body,
    __doc__="response: whose question is answered once more, or which goes on; the leaf, if it is "
    "not said.",
    response=(str | None, None),
    **_fields_without(*_OF_THE_CHAT, "input"),
)
MessageBody = create_model(
    "MessageBody",
    __base__=Body,
    __doc__="content: what the visitor says; or input, for other items. parent: the response that "
    "it follows; null for none, the leaf if it is not said. The rest: as for a response.",
    content=(str | list[Any] | None, None),
    parent=(str | None, None),
    **_fields_without(*_OF_THE_CHAT),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: `fields` of a response, beside those of the chat. place: the response
    that the body names. is_placed: whether it names one, or null."""

    fields: Mapping[str, Any]
    place: str | None
    is_placed: bool


def parse_new_chat(body: dict[str, Any]) -> NewChat:
    """Raises InvalidRequest that names the field."""
    chat = checked_body(NewChat, body)
    check_settings(chat.settings or {})
    return chat


def parse_changes(body: dict[str, Any]) -> dict[str, Any]:
    """What is to be changed, by its names. Raises InvalidRequest that names the field."""
    changes = checked_body(ChatChanges, body)
    check_settings(changes.settings or {})
    named = {name: getattr(changes, name) for name in changes.model_fields_set}
    if "settings" in named:
        named["settings"] = named["settings"] or {}
    return named


def parse_message(body: dict[str, Any]) -> Wish:
    """Raises InvalidRequest that names the field."""
    wish = _wish(body, place="parent")
    fields = dict(wish.fields)
    content = fields.pop("content", None)
    if content is None and fields.get("input") is None:
        raise InvalidRequest("content: Field required", param="content")
    if content is not None:
        if fields.get("input") is not None:
            raise InvalidRequest("input: content is there already", param="input")
        if not isinstance(content, str | list):
            raise InvalidRequest("content: a text or a list of parts", param="content")
        fields["input"] = [{"type": "message", "role": "user", "content": content}]
        _checked_request(fields, names={_PLACE: "content"})
    else:
        _checked_request(fields, names={})
    return Wish(fields, wish.place, wish.is_placed)


def parse_regeneration(body: dict[str, Any]) -> Wish:
    """Raises InvalidRequest that names the field."""
    if "input" in body:
        raise InvalidRequest("input: the question stays as it is", param="input")
    wish = _wish(body, place="response")
    _checked_request({**wish.fields, "input": "x"}, names={})
    return wish


def chat_request(
    wish: Wish, settings: Mapping[str, Any], *, parent: str | None, place: str = "parent"
) -> ResponseRequest:
    """The request for a response of a chat. place: what the body calls the one that it follows.

    Raises InvalidRequest for what does not go with the chat's settings.
    """
    body = {**settings, **wish.fields, "previous_response_id": parent, "store": True}
    return _checked_request(body, names={"previous_response_id": place})


def renamed(error: InvalidRequest, names: Mapping[str, str]) -> InvalidRequest:
    """The refusal in the words of the body that was sent. names: what it calls which field."""
    for old, new in names.items():
        if error.param is not None and error.param.startswith(old):
            error.param = new + error.param.removeprefix(old)
            error.message = error.message.replace(old, new, 1)
    return error


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what is no setting of a chat."""
    for name in (*_OF_THE_CHAT, *_OF_ONE_MESSAGE):
        if name in settings:
            raise InvalidRequest(
                f"settings.{name} is no setting", param=f"settings.{name}", code="unknown_parameter"
            )
    try:
        parse_response_request({**settings, "input": "x"})
    except InvalidRequest as error:
        error.message, error.param = f"settings.{error.message}", f"settings.{error.param}"
        raise


def _wish(body: dict[str, Any], *, place: str) -> Wish:
    for name in _OF_THE_CHAT:
        if name in body:
            raise InvalidRequest(
                f"{name}: a chat says this itself; {place} names the response to go on from",
                param=name,
                code="unsupported_parameter",
            )
    given = body.get(place)
    if given is not None and not isinstance(given, str):
        raise InvalidRequest(f"{place}: the id of a response, or null", param=place)
    fields = {name: value for name, value in body.items() if name != place}
    return Wish(fields, given, place in body)


def _checked_request(body: dict[str, Any], *, names: Mapping[str, str]) -> ResponseRequest:
    try:
        return parse_response_request(body)
    except InvalidRequest as error:
        raise renamed(error, names) from error
