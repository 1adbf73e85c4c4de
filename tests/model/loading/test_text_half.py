"""Of a model that takes pictures the text half is loaded, and answers as the whole model does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from millstream.model.loading.checkpoint import weight_files
from millstream.model.loading.text_half import text_half
from tests.model.architectures import greedy, randomise
from tests.model.small_configs import small_config
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts


def make_whole(model_type: str, folder: Path) -> PreTrainedModel:
    """Saves a tiny model with all its parts, as it is published, and returns it."""
    config = small_config(model_type)
    torch.manual_seed(0)
    kind = AutoModelForImageTextToText._model_mapping[type(config)]
    model: PreTrainedModel = kind._from_config(config, dtype=torch.float32)
    randomise(model, seed=0)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("model_type", "served"),
    [
        ("gemma3", "Gemma3ForCausalLM"),
        ("gemma4", "Gemma4ForCausalLM"),
        ("gemma4_unified", "Gemma4UnifiedForCausalLM"),
        ("llama4", "Llama4ForCausalLM"),
        ("llava", "LlamaForCausalLM"),
        ("mistral3", "MistralForCausalLM"),
        ("qwen3_5", "Qwen3_5ForCausalLM"),
    ],
)
def test_the_text_half_is_served_alone(model_type: str, served: str, tmp_path: Path) -> None:
    whole = make_whole(model_type, tmp_path)
    runner = make_runner(tmp_path, device="cpu", block_size=8)
    assert runner.info.architecture == served
    others = [
        parameter.numel()
        for name, parameter in whole.named_parameters()
        if "language_model" not in name and "lm_head" not in name
    ]
    assert runner.info.num_parameters == whole.num_parameters() - sum(others)
    prompts = random_prompts(3, seed=1, longest=40)
    expected = {i: greedy(whole, prompt, 12) for i, prompt in enumerate(prompts)}
    requests = [greedy_request(i, prompt, 12) for i, prompt in enumerate(prompts)]
    assert answers(runner, requests, max_step_tokens=24) == expected


def test_the_output_layer_is_tied_as_in_the_whole_model(tmp_path: Path) -> None:
    make_whole("llava", tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    config.text_config.tie_word_embeddings = True
    half = text_half(config, weight_files(tmp_path))
    assert half is not None
    assert not half.tie_word_embeddings
    assert config.text_config.tie_word_embeddings  # the caller's own is left alone


def test_a_half_that_the_files_lack_a_tensor_of_is_not_taken(tmp_path: Path) -> None:
    make_whole("gemma3", tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    (file,) = weight_files(tmp_path)
    assert text_half(config, [file]) is not None
    tensors = load_file(file)
    del tensors["language_model.model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    assert text_half(config, [file]) is None


def test_a_text_model_has_no_half(tmp_path: Path) -> None:
    small_config("llama").save_pretrained(tmp_path)
    assert text_half(AutoConfig.from_pretrained(tmp_path), []) is None
