"""Fields of other servers that this one knows and does not implement, source by source."""

from __future__ import annotations

from typing import Any

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (False,),
    "best_of": (1,),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_decoding_backend": ("auto",),
    "kv_transfer_params": ({},),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": ("in_memory",),
    "return_full_text": (False,),
    "return_tokens_as_token_ids": (False,),
    "service_tier": ("auto", "default"),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "suffix": ("",),
    "tool_prompt": ("",),
    "top_n_tokens": (0,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "vllm_xargs": ({},),
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
_TGI = {"adapter_id", "guideline", "tool_prompt", "top_n_tokens", "truncate"}

UNSUPPORTED = frozenset({*NEUTRAL, *_OPENAI, *_VLLM, *_TGI})
"""Fields of the OpenAI API, vLLM and TGI that this server knows and does not implement."""
