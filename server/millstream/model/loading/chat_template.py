"""The chat template of a loaded tokenizer, rendered as transformers does with null values kept.

transformers' `apply_chat_template` takes keys whose value is null out of the messages, but some
templates ask for them: DeepSeek's write calls only where the content is null.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.errors import StartupError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LoadedTemplate:
    """What chat needs of a transformers tokenizer. Safe to call from several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        # Intentional: transformers takes seconds to import, see `tokenizer`.
        from transformers import PreTrainedTokenizerBase
        from transformers.utils.chat_template_utils import render_jinja_template

        self._tokenizer = tokenizer
        self._render: Any = render_jinja_template
        general = PreTrainedTokenizerBase.apply_chat_template
        self._has_its_own = type(tokenizer).apply_chat_template is not general

    @property
    def chat_template(self) -> Any:
        return self._tokenizer.chat_template

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """The conversation as text. options: those of transformers' method of this name."""
        if self._has_its_own:
            return self._tokenizer.apply_chat_template(conversation, **options)
        assert not options.pop("tokenize")
        tools = options.pop("tools", None)
        texts, _ = self._render(
            conversations=[conversation],
            tools=tools,
            chat_template=self._tokenizer.get_chat_template(None, tools),
            **{**self._tokenizer.special_tokens_map, **options},
        )
        return texts[0]


def use_template(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Gives the tokenizer the chat template in a file. Raises StartupError if it has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise StartupError(f"--chat-template: {path} cannot be read: {reason}") from error
    if not text.strip():
        raise StartupError(f"--chat-template: {path} is empty")
    tokenizer.chat_template = text
