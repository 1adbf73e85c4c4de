"""From chat messages to the token ids the model reads.

Rules: the model's own template decides the layout; a client cannot bring a template, only values
for the variables that the template reads. Rendering and tokenising take time in proportion to the
text, so callers run both in a worker thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tokenizers import Tokenizer

from millstream.errors import InvalidRequest
from millstream.text.conversation_writer import ChatTemplate, ConversationWriter
from millstream.text.encoding import encode
from millstream.text.literal.literal_text import LiteralText
from millstream.text.message_moves import Message
from millstream.text.raw_prompt import check_characters
from millstream.text.template_variables import check_variables


class ChatFormatter:
    """Renders and tokenises conversations. Safe to call from several threads.

    template: renders the text. tokenizer: the fast tokenizer behind it, used directly, because
    transformers' wrapper sets truncation on it in every call, which is not safe between threads.
    """

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, *, is_literal: bool = False
    ) -> None:
        """is_literal: special tokens in what clients send are texts like any other. Takes seconds,
        and memory for another tokenizer; raises StartupError if that cannot be."""
        self._source = str(template.chat_template or "")
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._literal = LiteralText(tokenizer, source=self._source) if is_literal else None
        self._writer = ConversationWriter(template, literal=self._literal)

    def reads(self, variable: str) -> bool:
        """Whether the template's source mentions a variable of this name."""
        return variable.isidentifier() and bool(re.search(rf"\b{variable}\b", self._source))

    def reasoning_variables(self, effort: str) -> dict[str, Any]:
        """What tells this template how much to think: its word for it, or its switch.

        Raises InvalidRequest if it has neither.
        """
        if self.reads("reasoning_effort"):
            return {"reasoning_effort": effort}
        if self.reads("enable_thinking"):
            return {"enable_thinking": effort != "none"}
        raise InvalidRequest(
            "this model's chat template knows no reasoning effort", param="reasoning_effort"
        )

    def check_variables(self, variables: Mapping[str, Any]) -> None:
        """Raises InvalidRequest for a variable that is reserved or that the template ignores, and
        if there is no template."""
        self._writer.check_there_is_one()
        check_variables(variables, reads=self.reads)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        max_context: int,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> tuple[int, ...]:
        """Token ids of the conversation: `render()`, then `tokenize()`."""
        text = self.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
        )
        return self.tokenize(text, max_context=max_context)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The conversation as text, by default up to where the assistant's answer begins.

        add_generation_prompt: end with the head of the assistant's turn. continue_final_message:
        leave the last message open instead. variables: further variables of the template.
        tools: those that the assistant may call, as in an OpenAI request.

        The text may be marked: it is for `tokenize()`, and for people through `plain()`. Raises
        InvalidRequest if the template refuses the messages.
        """
        return self._writer.write(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            **(variables or {}),
        )

    def marked(self, text: str) -> str:
        """What the assistant has said, as it is put to a rendered conversation."""
        if self._literal is None:
            return text
        said: str = self._literal.marked(text, is_assistants=True)
        return said

    def plain(self, text: str) -> str:
        """A rendered conversation as people read it."""
        return text if self._literal is None else self._literal.plain(text)

    def tokenize(self, text: str, *, max_context: int | None) -> tuple[int, ...]:
        """Token ids of a rendered conversation. max_context: None if it may have any length.

        Raises ContextTooLong if the text is so long that it is not worth tokenising (over 64
        characters for each token of context), InvalidRequest for one that the tokenizer cannot
        read.
        """
        if max_context is not None:
            check_characters(self.plain(text), max_context=max_context, field="messages")
        read = partial(encode, param="messages")
        if self._literal is None:
            ids = read(self._tokenizer, text).ids
        else:
            ids = self._literal.encoded(text, read).ids
        if not ids:
            raise InvalidRequest("the messages make an empty prompt", param="messages")
        return tuple(ids)
