"""A conversation as a model's chat template writes it.

Rules: the template gets messages in the shape that it was found to read; what it refuses, and what
it would lose, is told by name. Arguments of calls that are no object are tried in two shapes,
since a template that goes through them by key cannot write them otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from millstream.errors import InvalidRequest
from millstream.text.call_arguments import read_arguments
from millstream.text.literal.literal_text import LiteralText
from millstream.text.message_moves import Message
from millstream.text.message_shapes import (
    ArgumentsForm,
    MessageShape,
    arguments_path,
    put_into_shape,
)
from millstream.text.shown_texts import check_shown
from millstream.text.template_errors import TEMPLATE_ERRORS
from millstream.text.template_trial import find_shape

_MAX_REASON = 500

Tools = Sequence[Mapping[str, Any]]


class ChatTemplate(Protocol):
    """What chat needs of a transformers tokenizer.

    chat_template: its source; None if there is none, and then `apply_chat_template` is not called.
    """

    @property
    def chat_template(self) -> Any: ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


class ConversationWriter:
    """Writes conversations with one template. Safe to call from several threads.

    Raises StartupError for a template that cannot be used.
    """

    def __init__(self, template: ChatTemplate, *, literal: LiteralText | None = None) -> None:
        """literal: marks what the template is given, and so what it writes of it."""
        self._template = template
        self._literal = literal
        self._source = str(template.chat_template or "")
        self._shape = MessageShape()
        if not self._source:
            return
        turn = {"add_generation_prompt": True, "continue_final_message": False}
        self._shape = find_shape(
            lambda messages, tools: self._apply(messages, tools=tools, **turn), self._source
        )

    @property
    def source(self) -> str:
        return self._source

    def check_there_is_one(self) -> None:
        """Raises InvalidRequest if the model has no chat template."""
        if not self._source:
            raise InvalidRequest(
                "this model has no chat template, so it can complete text (/v1/completions) but "
                "not chat; the server can be given one with --chat-template",
                param="messages",
            )

    def write(self, messages: Sequence[Message], *, tools: Tools, **options: Any) -> str:
        """The conversation as text. options: the template's variables, and how its turn ends.

        Raises InvalidRequest that names what the template refuses or leaves out.
        """
        self.check_there_is_one()
        odd = _odd_arguments(messages)
        shapes = [self._shape]
        if odd is not None and self._shape.arguments is ArgumentsForm.OBJECT:
            shapes.append(replace(self._shape, arguments=ArgumentsForm.WRAPPED))
        for shape in shapes:
            try:
                return self._write_in(shape, messages, tools=tools, **options)
            except InvalidRequest as error:
                refusal = error
        if odd is None or refusal.param != "messages" or not self._shape.shows_calls:
            raise refusal
        raise InvalidRequest(f"{refusal.message} ({odd} is no JSON object)", param=odd) from refusal

    def _write_in(
        self, shape: MessageShape, messages: Sequence[Message], *, tools: Tools, **options: Any
    ) -> str:
        shaped = put_into_shape(messages, shape)
        try:
            text = self._apply(shaped, tools=tools, **options)
        except TEMPLATE_ERRORS as error:
            reason = self._plain(str(error))[:_MAX_REASON]
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {reason}", param="messages"
            ) from error
        check_shown(
            messages,
            self._plain(text),
            source=self._source,
            beside_calls=not shape.shows_text_beside_calls,
        )
        return text

    def _plain(self, text: str) -> str:
        return text if self._literal is None else self._literal.plain(text)

    def _apply(self, messages: Sequence[Message], *, tools: Tools, **options: Any) -> str:
        if tools:
            options["tools"] = [dict(tool) for tool in tools]
        given = list(messages)
        if self._literal is not None:
            given = [self._literal.marked_message(message) for message in messages]
            options = {name: self._literal.marked(value) for name, value in options.items()}
        text: str = self._template.apply_chat_template(given, tokenize=False, **options)
        return text


def _odd_arguments(messages: Sequence[Message]) -> str | None:
    """The path of the first call's arguments that are no JSON object."""
    for place, message in enumerate(messages):
        for index, call in enumerate(message.get("tool_calls") or ()):
            path = arguments_path(place, index)
            arguments = (call.get("function") or call).get("arguments")
            if not isinstance(read_arguments(arguments, field=path), dict):
                return path
    return None
