"""The variables of a chat template that a client may set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from millstream.errors import InvalidRequest

RESERVED_VARIABLES = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""Arguments of transformers' `apply_chat_template`, which are not the client's to set."""


def check_variables(names: Iterable[str], *, reads: Callable[[str], bool]) -> None:
    """Raises InvalidRequest for one that is reserved or that the template ignores. reads: whether
    the template mentions it."""
    for name in names:
        if name in RESERVED_VARIABLES:
            reason = "is not the client's to set"
        elif not reads(name):
            reason = "is not used by this model's chat template"
        else:
            continue
        raise InvalidRequest(
            f"chat_template_kwargs: {name!r} {reason}", param="chat_template_kwargs"
        )
