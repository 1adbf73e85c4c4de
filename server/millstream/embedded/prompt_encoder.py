"""What may be given as a prompt, and its way to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from millstream.errors import InvalidRequest
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.encoding import encode

Message = Mapping[str, Any]
Prompt = str | Sequence[Message] | Sequence[int]
"""A user's text, a conversation, or token ids."""

Conversation = list[dict[str, Any]]
Checked = Conversation | str | tuple[int, ...]
"""A conversation for the chat template; or text, or ids, that the model reads as they are."""


def check_prompt(prompt: Prompt, *, raw: bool) -> Checked:
    """raw: a string is no message but text to go on with. Raises TypeError, InvalidRequest."""
    if isinstance(prompt, str):
        return prompt if raw else [{"role": "user", "content": prompt}]
    if isinstance(prompt, Mapping):
        raise TypeError("a conversation is a list of messages; put the message into a list")
    if not isinstance(prompt, Sequence):
        raise TypeError(
            "a prompt is a string, a list of messages or a list of token ids, not "
            f"{type(prompt).__name__}"
        )
    if not prompt:
        raise InvalidRequest("the prompt is empty", param="messages")
    if all(isinstance(part, Mapping) for part in prompt):
        if raw:
            raise TypeError("messages need the chat template; give text or token ids")
        return [dict(part) for part in prompt if isinstance(part, Mapping)]
    if all(isinstance(part, int) and not isinstance(part, bool) for part in prompt):
        return tuple(part for part in prompt if isinstance(part, int))
    raise TypeError("a prompt holds either messages (dicts) or token ids, and nothing else")


class PromptEncoder:
    """Token ids of a prompt. Takes time with its length; callable from any thread."""

    def __init__(self, chat: ChatFormatter, tokenizer: Tokenizer, *, vocab_size: int) -> None:
        self._chat = chat
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size

    def encode(
        self, prompt: Checked, *, max_context: int, variables: Mapping[str, Any] | None
    ) -> tuple[int, ...]:
        """variables: of the chat template. Raises InvalidRequest if it refuses the prompt."""
        if isinstance(prompt, list):
            self._chat.check_variables(variables or {})
            return self._chat.encode(prompt, max_context=max_context, variables=variables)
        if variables is not None:
            raise InvalidRequest(
                "chat_template_kwargs: this prompt is not put into the chat template",
                param="chat_template_kwargs",
            )
        if isinstance(prompt, tuple):
            for token in prompt:
                if not 0 <= token < self._vocab_size:
                    raise InvalidRequest(f"prompt: there is no token {token}", param="prompt")
            return prompt
        encoding = encode(self._tokenizer, prompt, param="prompt", add_special_tokens=True)
        ids = tuple(encoding.ids)
        if not ids:
            raise InvalidRequest("the prompt is empty", param="prompt")
        return ids
