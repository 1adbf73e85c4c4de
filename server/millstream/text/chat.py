"""From chat messages to the token ids the model reads.

Rules: the model's own template decides the layout; a client cannot bring a template. Rendering and
tokenising take time in proportion to the text, so callers run `encode()` in a worker thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jinja2 import TemplateError
from tokenizers import Tokenizer

from millstream.errors import ContextTooLong, InvalidRequest

Message = dict[str, Any]

_MAX_CHARACTERS_PER_TOKEN = 64


class ChatTemplate(Protocol):
    """What chat needs of a transformers tokenizer: its `apply_chat_template`."""

    def apply_chat_template(
        self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


class ChatFormatter:
    """Renders and tokenises conversations. Safe to call from several threads.

    template: renders the text. tokenizer: the fast tokenizer behind it, used directly, because
    transformers' wrapper sets truncation on it in every call, which is not safe between threads.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def encode(self, messages: Sequence[Message], *, max_context: int) -> tuple[int, ...]:
        """Token ids of the conversation, up to where the assistant's answer begins.

        Raises InvalidRequest if the template refuses the messages, ContextTooLong if the text is
        so long that it is not worth tokenising (over 64 characters for each token of context).
        """
        try:
            text = self._template.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        if len(text) > _MAX_CHARACTERS_PER_TOKEN * max_context:
            raise ContextTooLong(
                f"The messages have {len(text)} characters, far more than this model's context of "
                f"{max_context} tokens. Shorten the messages.",
                param="messages",
            )
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise InvalidRequest("the messages make an empty prompt", param="messages")
        return tuple(ids)
