"""The text half of a model that also takes pictures or sound: what is loaded of it, and how.

AutoModelForCausalLM gives some of these models whole, and does not know others, though their text
half is a model of its own. Here that half is taken, so that nothing else is held in memory.

Rule: it is taken only if the weight files have every tensor of it, by the names that they go by in
the files of such models. Otherwise all stays as transformers decides.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from millstream.errors import StartupError
from millstream.model.loading.checkpoint import build_skeleton

TEXT_KEYS = {r"^language_model\.": "", r"^model\.language_model\.": "model."}
"""How the names of a text half's tensors in the files of whole models become its own."""


def text_half(config: PretrainedConfig, files: Iterable[Path]) -> PretrainedConfig | None:
    """The configuration of the text half that the weights in `files` have beside other parts.

    None if there is no such half, or if AutoModelForCausalLM finds it by itself.
    """
    text = config.get_text_config(decoder=True)
    if text is config or getattr(config, "quantization_config", None) is not None:
        return None
    kinds: dict[str, object] = dict(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    kind = kinds.get(text.model_type)
    if kind is None or kind == kinds.get(config.model_type):
        return None
    text = copy.deepcopy(text)
    # The whole model's output layer goes by the whole model's configuration.
    text.tie_word_embeddings = getattr(config, "tie_word_embeddings", False)
    try:
        skeleton = build_skeleton(text, torch.float32, trust_remote_code=False)
    except StartupError:
        return None
    tied = set(skeleton.all_tied_weights_keys)
    needed = set(skeleton.state_dict()) - tied
    return text if needed <= {_own_name(name) for name in _names(files)} else None


def _names(files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            yield from tensors.keys()


def _own_name(name: str) -> str:
    for pattern, own in TEXT_KEYS.items():
        name = re.sub(pattern, own, name)
    return name
