"""Loading: what is broken is told in one sentence and never served; what happens is logged."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from millstream.errors import StartupError
from millstream.model.loading import memory
from millstream.model.loading import model as loading
from millstream.model.loading.model import load_model
from millstream.model.loading.tokenizer import load_tokenizer
from millstream.settings import Settings
from tests.model.architectures import make_model

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model("llama", tmp_path, num_hidden_layers=2)
    return tmp_path


def load(folder: Path, **options: Any) -> loading.LoadedModel:
    return load_model(folder, Settings(model_id=str(folder), threads=1, **options))


def edit_config(folder: Path, **changes: Any) -> None:
    """Sets entries of config.json; None takes one away."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def refusal(folder: Path, **options: Any) -> str:
    """The sentence with which the folder is refused."""
    with pytest.raises(StartupError) as caught:
        load(folder, **options)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize("model_type", [None, "unheard_of"])
def test_config_of_no_known_model(folder: Path, model_type: str | None) -> None:
    edit_config(folder, model_type=model_type, architectures=None)
    message = refusal(folder)
    assert "config.json cannot be used" in message
    assert model_type is None or model_type in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_config_that_is_no_json_object(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert "config.json" in refusal(folder)


def test_config_with_impossible_numbers(folder: Path) -> None:
    edit_config(folder, hidden_size="many")
    assert "config.json" in refusal(folder)


def test_not_a_decoder(folder: Path) -> None:
    edit_config(folder, model_type="clip", architectures=["CLIPModel"])
    assert "cannot be built" in refusal(folder)


def test_truncated_weights(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    for size in (0, 4, 200, len(content) - 1):
        (folder / WEIGHTS).write_bytes(content[:size])
        message = refusal(folder)
        assert WEIGHTS in message
        assert "damaged or incomplete" in message


def test_missing_shard(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    sharded = tmp_path_factory.mktemp("sharded")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    load(sharded)
    victim = sorted(sharded.glob("*.safetensors"))[1]
    victim.unlink()
    message = refusal(sharded)
    assert f"lacks weight files: {victim.name}" in message


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_broken_index(folder: Path, text: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(text, encoding="utf-8")
    assert INDEX in refusal(folder)


def test_weights_of_another_format_only(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    assert "Other formats can run code" in refusal(folder)


def test_missing_tensors_are_not_made_up(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_weights(folder, lambda tensors: tensors.pop(name))
    assert f"lack 1 tensors that the model needs: {name}" in refusal(folder)
    assert name in refusal(folder, quantize="int8")


def test_missing_output_layer_of_an_untied_model(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=False)
    edit_weights(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert "lm_head.weight" in refusal(folder)


def test_many_missing_tensors_are_counted(folder: Path) -> None:
    def empty_layer(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.1." in name]:
            del tensors[name]

    edit_weights(folder, empty_layer)
    assert "lack 9 tensors" in refusal(folder)
    assert "and 6 more" in refusal(folder)


def test_tensors_of_another_shape(folder: Path) -> None:
    edit_config(folder, intermediate_size=64)
    message = refusal(folder)
    assert "shape" in message or "size" in message


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_tied_weights_may_be_absent(model_type: str, tmp_path: Path) -> None:
    make_model(model_type, tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    model = load(tmp_path).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_tensors_of_no_use_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_weights(folder, lambda tensors: tensors.update(surplus=torch.zeros(3)))
    with caplog.at_level(logging.INFO, logger="millstream"):
        load(folder)
    assert "1 tensors of the checkpoint are not part of LlamaForCausalLM" in caplog.text


def test_no_tokenizer(folder: Path) -> None:
    with pytest.raises(StartupError, match=r"has no tokenizer\.json"):
        load_tokenizer(folder, trust_remote_code=False)


@pytest.mark.parametrize("text", ["{", "{}"])
def test_broken_tokenizer(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(StartupError, match="the tokenizer in") as caught:
        load_tokenizer(folder, trust_remote_code=False)
    assert "\n" not in caught.value.message


def test_progress_is_two_lines_of_log_and_nothing_else(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    # As an operator's terminal would have it.
    enable: Callable[[], None] = transformers_logging.enable_progress_bar
    enable()
    capfd.readouterr()
    with caplog.at_level(logging.INFO, logger="millstream"):
        load(folder, dtype="bfloat16", served_model_name="some-name")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "loading some-name (bfloat16, cpu, 0.00 GiB)"
    assert lines[-1].startswith("loaded in ")
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled()


def test_too_little_memory_is_told_before_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**14)
    monkeypatch.setattr(loading, "AutoModelForCausalLM", None)
    message = refusal(folder, dtype="float32")
    assert "the weights need 0.00 GiB in float32, and 0.00 GiB of cpu memory are free" in message
    assert "--dtype bfloat16 or --quantize int8 or a smaller model" in message
    assert "--dtype" not in refusal(folder, dtype="bfloat16")
    assert "--quantize" not in refusal(folder, dtype="bfloat16", quantize="int8")


def test_quantising_makes_it_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(tensor.numel() * 2 for tensor in load_file(folder / WEIGHTS).values())
    monkeypatch.setattr(memory, "available_bytes", lambda device: int(size * 0.8))
    refusal(folder, dtype="bfloat16")
    load(folder, dtype="bfloat16", quantize="int8")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
    ],
)
def test_running_out_while_loading_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Full:
        @staticmethod
        def from_pretrained(*args: Any, **options: Any) -> None:
            raise error

    monkeypatch.setattr(loading, "AutoModelForCausalLM", Full)
    assert "cpu memory ran out while the weights were loaded" in refusal(folder)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_progress_bar_is_for_terminals(
    is_terminal: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_model("llama", tmp_path, num_hidden_layers=1)
    capsys.readouterr()
    caplog.set_level("INFO", logger="millstream")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    load_model(tmp_path, Settings(model_id=str(tmp_path), threads=1))
    assert ("Loading weights" in capsys.readouterr().err) == is_terminal
