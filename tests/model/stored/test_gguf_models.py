"""Models in GGUF files: what their weights mean, or refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from millstream.errors import StartupError
from millstream.model.loading.model import load_model
from millstream.settings import Settings
from tests.model.stored.gguf_files import Q4_K_M, make_gguf
from tests.model.stored.test_stored_checkpoints import (
    EIGHT_BITS_IN_GROUPS,
    STEPS_OF_FOUR_BITS,
    require_meaning,
)
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

FLOATS = {"F32", "F16", "BF16"}


def load(folder: Path, **options: Any) -> Any:
    settings = Settings(model_id=str(folder), gguf_file="m.gguf", threads=1, **options)
    return load_model(folder, settings)


def limit_of(kinds: dict[str, str]) -> float:
    """How far logits may be off where all layers are plain ones."""
    inner = {kind for name, kind in kinds.items() if name not in ("token_embd", "output")}
    return STEPS_OF_FOUR_BITS if inner <= {"Q4_0", "Q4_K"} | FLOATS else EIGHT_BITS_IN_GROUPS


@pytest.mark.parametrize(
    ("model_type", "kinds"),
    [
        *(("llama", {"": kind}) for kind in ("Q8_0", "Q4_0", "F16", "BF16", "F32")),
        *((model_type, Q4_K_M) for model_type in ("llama", "qwen2", "qwen3")),
        ("qwen2", {"": "Q8_0"}),
        ("llama", {"": "Q5_0", "token_embd": "Q4_1", "output": "Q5_1"}),
    ],
)
def test_the_weights_mean_what_the_package_says(
    model_type: str, kinds: dict[str, str], tmp_path: Path
) -> None:
    meant = make_gguf(tmp_path / "m.gguf", kinds, model_type=model_type)
    loaded = load(tmp_path, dtype="float32")
    assert loaded.quantization == "gguf"
    require_meaning(loaded, meant, limit_of(kinds))


@pytest.mark.parametrize("kernels", ["off", "on"])
def test_answers_do_not_depend_on_neighbours(kernels: str, tmp_path: Path) -> None:
    make_gguf(tmp_path / "m.gguf", Q4_K_M, model_type="qwen3")
    runner = make_runner(tmp_path, gguf_file="m.gguf", native_kernels=kernels)
    assert runner.info.quantization == "gguf"
    requests = [
        greedy_request(index, prompt, 12) for index, prompt in enumerate(random_prompts(5, seed=4))
    ]
    together = answers(runner, requests, max_step_tokens=32)
    assert len({tuple(answer) for answer in together.values()}) == 5
    for request in requests:
        assert answers(runner, [request], max_step_tokens=512)[request.id] == together[request.id]


def test_stretched_positions_are_those_of_the_model(tmp_path: Path) -> None:
    """By the factors that llama.cpp's converter writes for Llama 3.1, and by its keys for yarn."""
    llama3 = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    meant = make_gguf(tmp_path / "m.gguf", {"": "Q4_0"}, rope_parameters=llama3)
    require_meaning(load(tmp_path, dtype="float32"), meant, STEPS_OF_FOUR_BITS)
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    more = {
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 32,
    }
    file = tmp_path / "m.gguf"
    meant = make_gguf(file, {"": "Q4_0"}, model_type="qwen2", rope_parameters=yarn, more=more)
    require_meaning(load(tmp_path, dtype="float32"), meant, STEPS_OF_FOUR_BITS)


def test_biases_of_llama(tmp_path: Path) -> None:
    biases = {"attention_bias": True, "mlp_bias": True}
    meant = make_gguf(tmp_path / "m.gguf", {"": "Q4_0"}, **biases)
    require_meaning(load(tmp_path, dtype="float32"), meant, STEPS_OF_FOUR_BITS)


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_output_layer_is_the_embedding_where_the_file_has_none(
    is_tied: bool, tmp_path: Path
) -> None:
    make_gguf(tmp_path / "m.gguf", {"": "Q8_0"}, tie_word_embeddings=is_tied)
    model = load(tmp_path).model
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert torch.equal(head.weight, embedding.weight) == is_tied


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"general.architecture": "mamba"}, "the GGUF architecture 'mamba' is not known here; kn"),
        ({"llama.expert_count": 8}, "m.gguf: llama.expert_count = 8 is not known here"),
        ({"llama.attention.sliding_window": 64}, "llama.attention.sliding_window = 64 is not know"),
        ({"llama.rope.scaling.type": "longrope"}, "positions scaled by 'longrope' (rope.scaling"),
        ({"llama.attention.value_length": 32}, "value_length is 32, and keys are 64 wide"),
        ({"split.count": 3}, "m.gguf is one of 3 files of a model; merge them"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    more: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    make_gguf(tmp_path / "m.gguf", {"": "Q8_0"}, more=more)
    with pytest.raises(StartupError, match=re.escape(reason)):
        load(tmp_path)


def test_unknown_types_of_tensors_are_refused_by_number(tmp_path: Path) -> None:
    make_gguf(tmp_path / "m.gguf", {"": "Q8_0", "attn_v": "TQ1_0"})
    with pytest.raises(StartupError, match=r"m.gguf: blk.0.attn_v.weight is stored in .* type 34"):
        load(tmp_path)


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    make_gguf(file, {"": "F32"})
    file.write_bytes(file.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(StartupError, match=r"LlamaForCausalLM has no place .* blk.1.ffn_xx.weight"):
        load(tmp_path)


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    """Here a layer that the metadata has and the tensors have not."""
    make_gguf(tmp_path / "m.gguf", {"": "Q8_0"}, more={"llama.block_count": 3})
    with pytest.raises(StartupError, match=r"lack 9 tensors that the model needs: model.layers.2"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 500, 0.5, 0.999])
def test_damaged_files_are_refused(kept: float, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    make_gguf(file, {"": "Q8_0"})
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(StartupError, match=r"m.gguf (is|cannot)") as caught:
        load(tmp_path)
    assert "\n" not in caught.value.message


def test_another_file_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK" * 100)
    with pytest.raises(StartupError, match=r"m.gguf is not a GGUF file"):
        load(tmp_path)
