"""A small configuration for any model type: the same small values for whatever its class accepts.

Kinds of layers that a type mixes by default (sliding and full attention, dense and sparse) all
take part, and windows are shorter than the prompts of the tests.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCAB = 199
WINDOW = 24  # more than the tokens the server compares at start, less than a prompt
NUM_LAYERS = 4

_SIZES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (VOCAB, ("vocab_size", "vocab_size_per_layer_input")),
    (64, ("hidden_size", "n_embd", "d_model")),
    (
        96,
        (
            *("intermediate_size", "n_inner", "dff", "ffn_dim", "ffn_hidden_size"),
            *("dense_intermediate_size", "intermediate_size_mlp"),
            *("encoder_ffn_dim", "decoder_ffn_dim"),
        ),
    ),
    (
        48,
        (
            *(
                "moe_intermediate_size",
                "shared_expert_intermediate_size",
                "shared_intermediate_size",
            ),
            *("shared_experts_intermediate_size", "expert_ffn_hidden_size"),
        ),
    ),
    (
        NUM_LAYERS,
        (
            *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
            *("encoder_layers", "decoder_layers"),
        ),
    ),
    (
        4,
        (
            *("num_attention_heads", "n_head", "n_heads", "index_n_heads", "index_topk_blocks"),
            *("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
            *("index_block_size", "encoder_attention_heads", "decoder_attention_heads"),
        ),
    ),
    (
        2,
        (
            *("num_key_value_heads", "num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"),
            *("zero_expert_num", "max_window_layers", "sliding_window_pattern"),
        ),
    ),
    (
        1,
        (
            *("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
            *("n_group", "topk_group", "first_k_dense_replace", "num_dense_layers"),
        ),
    ),
    (256, ("max_position_embeddings", "n_positions", "max_seq_len")),
    (
        WINDOW,
        (
            *("sliding_window", "attention_chunk_size", "local_attention", "attention_window_size"),
            *("keep_window_size", "index_topk", "q_lora_rank", "qk_head_dim"),
        ),
    ),
    (
        16,
        (
            *("head_dim", "query_pre_attn_scalar", "index_head_dim", "kv_lora_rank"),
            *("qk_nope_head_dim", "block_size", "pronunciation_vocab_size", "shape_vocab_size"),
        ),
    ),
    (12, ("v_head_dim",)),
    (8, ("qk_rope_head_dim", "hidden_size_per_layer_input")),
    # What layers with a state keep: heads times head dims are twice the hidden size in Mamba 2.
    (4, ("mamba_n_heads", "mamba_num_heads", "linear_num_value_heads", "linear_num_heads")),
    (2, ("linear_num_key_heads", "n_mamba_heads", "n_groups", "mamba_n_groups", "mamba_ngroups")),
    (32, ("mamba_head_dim",)),
    (128, ("mamba_d_ssm",)),
    (16, ("mamba_d_state", "ssm_state_size", "state_size", "linear_key_head_dim")),
    (12, ("linear_value_head_dim", "linear_head_dim")),
    (8, ("chunk_size", "mamba_chunk_size")),
)
_SMALL: dict[str, Any] = {name: size for size, names in _SIZES for name in names} | {
    "use_sliding_window": True,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MLA = {"num_key_value_heads": 4, "head_dim": 8}
_DOTS3 = {
    "num_key_value_heads": 4,
    "head_dim": 24,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 24,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 24,
    "swa_qk_nope_head_dim": 16,
    "swa_v_head_dim": 12,
}
_QSA = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "ple_embed_dim": 16,
    "ngram_vocab_size_base": 200,
    "split_ngram_parts": 1,
    "hc_lowrank": 8,
}
_MIXED = ["linear_attention", "full_attention"] * 2
_SHARED = ["linear_attention", "hybrid"] * 2
_FULL_ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}
_OVERRIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32"), _MLA),
    **dict.fromkeys(("bailing_hybrid", "kimi_linear"), _MLA | {"layer_types": _MIXED}),
    **dict.fromkeys(("glm4_moe_lite", "glm_moe_dsa", "longcat_flash", "minicpm3", "youtu"), _MLA),
    "cohere_compass_text": {"rope_parameters": _FULL_ROPE},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "dots3_note": {
        "text_config": _DOTS3,
        "vision_config": {
            "adapter_in_dim": 64,
            "adapter_out_dim": 64,
            "pyramid_num_routed": [-1, -1, 4, 4],
        },
        "audio_config": {"adapter_input_size": 64, "adapter_out_dim": 64},
    },
    "dots3_note_text": _DOTS3,
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "bamba": {"attn_layer_indices": [1, 3]},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    # The layers of the published models, where the default has another mix.
    "granitemoehybrid": {"layer_types": _MIXED, "position_embedding_type": "rope"},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 4, "head_dim": 32},
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2},
    "modernbert-decoder": {"cls_token_id": 1, "sep_token_id": 1},
    "qwen4_exp": {"text_config": _QSA},
    "qwen4_exp_text": _QSA,
    "reformer": {"axial_pos_embds": False},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {"layers_block_type": _SHARED},
    "zamba2": {"layers_block_type": _SHARED, "num_mem_blocks": 2},
    "zaya": {"num_experts_per_tok": 1},
}


def small_config(model_type: str, **overrides: Any) -> PretrainedConfig:
    """The type's configuration with small values for whatever its class accepts."""
    return _shrink(CONFIG_MAPPING[model_type], _OVERRIDES.get(model_type, {}) | overrides)


def _shrink(kind: type[PretrainedConfig], overrides: dict[str, Any]) -> PretrainedConfig:
    accepted, default = set(inspect.signature(kind.__init__).parameters), kind()
    known = {kind.attribute_map.get(name, name): value for name, value in _SMALL.items()}
    options = {name: value for name, value in (known | _SMALL).items() if name in accepted}
    for name in ("layer_types", "mlp_layer_types", "block_types"):
        kinds = list(dict.fromkeys(getattr(default, name, None) or ()))
        if name in accepted and len(kinds) > 1:
            options[name] = (kinds * NUM_LAYERS)[:NUM_LAYERS]
    options |= overrides
    for name in kind.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PretrainedConfig) and name in accepted:
            options[name] = _shrink(type(part), overrides.get(name, {}))
    return kind(**options)
