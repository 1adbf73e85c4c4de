"""Fields of other servers that this one knows and does not implement, source by source."""

from __future__ import annotations

from typing import Any

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (False,),
    "best_of": (1,),
    "cache_prompt": (True,),
    "documents": ([],),
    "dry_multiplier": (0,),
    "echo": (False,),
    "extra_body": ({},),
    "extra_headers": ({},),
    "extra_query": ({},),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_decoding_backend": ("auto",),
    "id_slot": (-1,),
    "kv_transfer_params": ({},),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "media_io_kwargs": ({},),
    "mirostat": (0,),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "models": ([],),
    "n_probs": (0,),
    "no_stop_trim": (False,),
    "plugins": ([],),
    "prompt_cache_options": ({},),
    "prompt_cache_retention": ("in_memory",),
    "provider": ({},),
    "return_full_text": (False,),
    "return_tokens_as_token_ids": (False,),
    "separate_reasoning": (True,),
    "service_tier": ("auto", "default", "flex"),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "stream_reasoning": (True,),
    "suffix": ("",),
    "tfs_z": (1,),
    "timings_per_token": (False,),
    "tool_prompt": ("",),
    "top_n_tokens": (0,),
    "transforms": ([],),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "vllm_xargs": ({},),
    "watermark": (False,),
    "xtc_probability": (0,),
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
_SGLANG = {"lora_path", "rid"}

UNSUPPORTED = frozenset({*NEUTRAL, *_OPENAI, *_VLLM, *_TGI, *_SGLANG})
"""Fields of the OpenAI API, vLLM, TGI, SGLang, llama.cpp, OpenRouter and SDKs that this one knows
and does not implement."""
