"""Fields that are known and not implemented, and what about them is accepted all the same."""

from __future__ import annotations

from typing import Any

from millstream.errors import InvalidRequest

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (False,),
    "best_of": (1,),
    "echo": (False,),
    "include_reasoning": (True,),
    "length_penalty": (1,),
    "modalities": (["text"],),
    "return_full_text": (False,),
    "return_tokens_as_token_ids": (False,),
    "service_tier": ("auto", "default"),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "watermark": (False,),
}
"""Values of unsupported fields that ask for what happens without them."""

_OPENAI = {
    "audio",
    "function_call",
    "functions",
    "moderation",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "verbosity",
    "web_search_options",
}
_VLLM = {
    "chat_template",
    "documents",
    "guided_decoding_backend",
    "guided_whitespace_pattern",
    "kv_transfer_params",
    "logits_processors",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "prompt_embeds",
    "request_id",
    "thinking_token_budget",
    "truncate_prompt_tokens",
    "vllm_xargs",
}
_TGI = {"adapter_id", "grammar", "guideline", "tool_prompt", "top_n_tokens", "truncate"}

UNSUPPORTED = frozenset({*NEUTRAL, *_OPENAI, *_VLLM, *_TGI})
"""Fields of the OpenAI API, vLLM and TGI that this server knows and does not implement."""


def is_neutral(name: str, value: Any) -> bool:
    """Whether an unsupported field has a value that changes nothing."""
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in NEUTRAL.get(name, ())
    )


def without_unsupported(body: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields of a body that its schema is to check. Raises InvalidRequest for all others."""
    fields = {}
    for name, value in body.items():
        if name in known:
            fields[name] = value
        elif name not in UNSUPPORTED:
            raise InvalidRequest(
                f"{name} is not a field of this API", param=name, code="unknown_parameter"
            )
        elif not is_neutral(name, value):
            raise InvalidRequest(
                f"{name} is not supported by this server", param=name, code="unsupported_parameter"
            )
    return fields
