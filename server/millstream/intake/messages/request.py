"""The body of POST /v1/messages: each field by itself, those that go together, the chat of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import PrivateAttr, ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.fields.chat_messages import Message
from millstream.intake.fields.response_format import ResponseFormat
from millstream.intake.hints import check_hints
from millstream.intake.known_fields import unknown_field
from millstream.intake.messages.blocks import check_part, refusal
from millstream.intake.messages.conversation import Conversation
from millstream.intake.messages.message_fields import (
    ContextEdit,
    CountedFields,
    KeptTurns,
    MessageFields,
)
from millstream.intake.messages.tools import read_tools
from millstream.intake.requests.agent_chat import AgentChat
from millstream.intake.requests.chat import MAX_MESSAGES
from millstream.intake.requests.turns import MessagePlaces
from millstream.intake.sampling_fields import DrawingFields
from millstream.intake.strict_body import invalid

F = TypeVar("F", bound=CountedFields)

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "billing_policy": (),
    "compaction": (),
    "container": (),
    "fallback_credit_token": (),
    "fallbacks": ([],),
    "mcp_servers": ([],),
    "stop": ([],),
    "thread": (),
    "workspace_id": (),
}
"""Fields that would change the answer -> values that ask for nothing, beside null."""
_SAME = frozenset({*DrawingFields.model_fields} - {"stop"} | {"chat_template_kwargs", "timeout"})
"""Fields that chat has under the same name."""
_WORDS = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "output_config.effort",
}
"""What chat calls a field -> its name here."""


class MessagesChat(AgentChat):
    """The chat request that a body asks for, with the way back to its words.

    hides_thoughts: they are made and counted, and sealed in the answer. is_silent: only the prompt
    is wanted, in the cache.
    """

    hides_thoughts: bool = False
    is_silent: bool = False
    _places: list[MessagePlaces] = PrivateAttr(default_factory=list)
    _tool_paths: list[str] = PrivateAttr(default_factory=list)
    _format_path: str = PrivateAttr("output_config.format")

    def reword(self, error: InvalidRequest) -> None:
        """Gives a refusal the paths of the body that the client sent."""
        if error.param is not None:
            path = self._path(error.param)
            error.message = error.message.replace(error.param, path)
            error.param = path

    def _path(self, param: str) -> str:
        """The path here of a path in the chat request."""
        if found := re.match(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?", param):
            places = self._places[int(found[1])]
            return places.content if found[2] is None else places.calls[int(found[2])]
        if found := re.match(r"tools\[(\d+)\]", param):
            rest = param[found.end() :].replace("parameters", "input_schema", 1)
            return self._tool_paths[int(found[1])] + rest
        if param.startswith("response_format"):
            return self._format_path + param.removeprefix("response_format")
        head = re.split(r"[.\[]", param, maxsplit=1)[0]
        return _WORDS.get(head, head) + param[len(head) :]


def parse_messages_request(body: dict[str, Any]) -> MessagesChat:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    fields = _checked(MessageFields, body)
    if (fields.min_tokens or 0) > fields.max_tokens:
        raise refusal("min_tokens", f"{fields.min_tokens} are more than max_tokens")
    if fields.skip_special_tokens is False and fields.tools:
        raise refusal("skip_special_tokens", "false shows calls unread; not with tools")
    same = {name: getattr(fields, name) for name in sorted(_SAME & fields.model_fields_set)}
    return _chat(
        fields,
        **same,
        # No prompt is computed for less than a token.
        max_completion_tokens=fields.max_tokens or 1,
        is_silent=not fields.max_tokens,
        stop=fields.stop_sequences or None,
        stream=bool(fields.stream),
    )


def parse_count_request(body: dict[str, Any]) -> MessagesChat:
    """Checks the body of a request to count. Raises InvalidRequest as for an answer."""
    fields = _checked(CountedFields, body)
    return _chat(fields, chat_template_kwargs=fields.chat_template_kwargs)


def _checked(kind: type[F], body: dict[str, Any]) -> F:
    fields = _without_unsupported(body, frozenset(kind.model_fields))
    check_hints("messages", fields)
    try:
        checked = kind.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
    for name in ("metadata", "thinking"):
        check_hints("messages", fields.get(name) or {}, under=f"{name}.")
    return checked


def _without_unsupported(body: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    fields = {}
    for name, value in body.items():
        if name in _UNSUPPORTED:
            if value is not None and value not in _UNSUPPORTED[name]:
                raise InvalidRequest(
                    f"{name} is not supported by this server",
                    param=name,
                    code="unsupported_parameter",
                )
        elif name in known:
            fields[name] = value
        else:
            raise unknown_field(name)
    return fields


def _chat(fields: CountedFields, **more: Any) -> MessagesChat:
    tools = read_tools(fields.tools or ())
    choice = tools.choice(fields.tool_choice)
    conversation = Conversation()
    conversation.add_system(fields.system)
    conversation.add(fields.messages)
    if len(conversation.messages) > MAX_MESSAGES:
        raise refusal("messages", f"they are more than {MAX_MESSAGES} turns and results")
    form, format_path = _form(fields)
    edits = fields.context_management.edits if fields.context_management else None
    display = fields.thinking.display if fields.thinking else None
    chat = MessagesChat(
        messages=_edited(conversation.messages, edits or ()),
        tools=tools.tools or None,
        tool_choice=choice if tools.tools else None,
        parallel_tool_calls=fields.is_parallel,
        response_format=form,
        reasoning_effort=fields.effort,
        hides_thoughts=display == "omitted",
        **more,
    )
    chat._places, chat._tool_paths, chat._format_path = (
        conversation.places,
        tools.paths,
        format_path,
    )
    return chat


def _form(fields: CountedFields) -> tuple[ResponseFormat | None, str]:
    """The form of the answer, and the path of the field that has it."""
    config = fields.output_config
    given = None if config is None else config.format
    if given is not None and fields.output_format is not None:
        raise refusal("output_format", "output_config.format says it; send one of them")
    path = "output_config.format" if fields.output_format is None else "output_format"
    given = given or fields.output_format
    if given is None:
        return None, path
    return ResponseFormat.model_validate({"type": "json_schema", "schema": given.schema_}), path


def _edited(messages: Sequence[Message], edits: Sequence[ContextEdit]) -> list[Message]:
    """The messages without the thoughts that are to be left out. Raises InvalidRequest."""
    edited = list(messages)
    for place, edit in enumerate(edits):
        kept = _num_kept(edit.keep, path=f"context_management.edits[{place}].keep")
        thinking = [at for at, message in enumerate(edited) if message.thoughts]
        for at in thinking[: len(thinking) - kept] if kept is not None else ():
            edited[at] = edited[at].model_copy(update={"reasoning_content": None})
    return edited


def _num_kept(keep: Any, *, path: str) -> int | None:
    """How many of the last answers keep their thoughts; None for all."""
    if keep == "all" or (isinstance(keep, Mapping) and keep == {"type": "all"}):
        return None
    if keep is None:
        return 1
    if not isinstance(keep, dict):
        raise refusal(path, "should be 'all' or an object with a number of turns")
    return min(check_part(KeptTurns, keep, path=path).value, MAX_MESSAGES)
