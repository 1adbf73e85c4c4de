"""Checkpoints stored in four or eight bits: the model that their weights mean, or refused."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from millstream.errors import StartupError
from millstream.model.acceleration import prepare_quantized
from millstream.model.cpu.kernels import plain
from millstream.model.cpu.linears import NativeGroupedLinear, NativeInt8Linear
from millstream.model.cpu.packing import pack_grouped
from millstream.model.grouped import GroupedLinear
from millstream.model.loading import model as model_module
from millstream.model.loading.model import LoadedModel, load_model
from millstream.model.loading.stored_layers import lay_out
from millstream.model.tolerance import logits_difference
from millstream.settings import Settings
from tests.model.stored.checkpoints import (
    Store,
    awq,
    awq_config,
    compressed,
    compressed_config,
    gptq,
    gptq_config,
    make_stored,
)
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

PACKED = compressed_config("pack-quantized", bits=4, group=32)
PACKED_ASYMMETRIC = compressed_config("pack-quantized", bits=4, group=64, symmetric=False)
PACKED_8 = compressed_config("pack-quantized", bits=8, group=None)
INT8 = compressed_config("int-quantized", bits=8, group=None, inputs=True)
NAIVE_8 = compressed_config("naive-quantized", bits=8, group=None, symmetric=False)

CASES: dict[str, tuple[Store, dict[str, Any]]] = {
    "gptq": (gptq(), gptq_config()),
    "gptq asymmetric": (gptq(64, symmetric=False), gptq_config(sym=False, group_size=64)),
    "gptq whole rows": (gptq(-1), gptq_config(group_size=-1)),
    "gptq v2": (gptq(version=2), gptq_config(checkpoint_format="gptq_v2")),
    "gptq 8 bits": (gptq(bits=8), gptq_config(bits=8)),
    "gptq act-order": (gptq(order=True), gptq_config(desc_act=True)),
    "awq": (awq(), awq_config()),
    "awq 64": (awq(64), awq_config(group_size=64)),
    "packed": (compressed(PACKED), PACKED),
    "packed asymmetric": (compressed(PACKED_ASYMMETRIC), PACKED_ASYMMETRIC),
    "packed 8 bits": (compressed(PACKED_8), PACKED_8),
    "int8": (compressed(INT8), INT8),
    "naive int8": (compressed(NAIVE_8), NAIVE_8),
}


@torch.inference_mode()
def logits(model: PreTrainedModel) -> Tensor:
    model.set_attn_implementation("eager")
    ids = torch.arange(60).unsqueeze(0) * 37 % model.config.vocab_size
    out: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return out.float()


# Of the logits' spread, on these random models, where a wrong layer makes a difference of about 1.
STEPS_OF_FOUR_BITS = 1e-3  # are rounded a little
EIGHT_BITS_IN_GROUPS = 0.04  # are rounded once more
ROWS_OF_EIGHT_BITS = 0.08  # what goes into every layer is rounded


def require_meaning(loaded: LoadedModel, meant: PreTrainedModel, limit: float) -> None:
    """The logits of a loaded model are those of what its weights mean, by its own layers within
    what rows are rounded, and by plain ones within `limit`."""
    expected = logits(meant)
    assert logits_difference(logits(loaded.model), expected) < limit + ROWS_OF_EIGHT_BITS
    pack_grouped(loaded.model, None, torch.float32)
    assert logits_difference(logits(loaded.model), expected) < limit


@pytest.mark.parametrize("case", CASES)
def test_the_weights_mean_what_their_tool_says(case: str, tmp_path: Path) -> None:
    store, config = CASES[case]
    meant = make_stored(tmp_path, store, config)
    settings = Settings(model_id=str(tmp_path), threads=1, dtype="float32")
    loaded = load_model(tmp_path, settings)
    assert loaded.quantization == config["quant_method"]
    grouped = [m for m in loaded.model.modules() if isinstance(m, GroupedLinear)]
    assert len(grouped) == (0 if case == "gptq act-order" else 14)
    is_rounded_again = case in ("gptq 8 bits", "naive int8")
    require_meaning(loaded, meant, EIGHT_BITS_IN_GROUPS if is_rounded_again else STEPS_OF_FOUR_BITS)


@pytest.mark.parametrize("sizes", [{"hidden_size": 80, "head_dim": 20}, {"intermediate_size": 200}])
def test_layers_of_odd_sizes_are_dequantised(sizes: dict[str, int], tmp_path: Path) -> None:
    """Rows of the kernels are of whole groups of 32."""
    meant = make_stored(tmp_path, gptq(8), gptq_config(group_size=8), **sizes)
    loaded = load_model(tmp_path, Settings(model_id=str(tmp_path), threads=1, dtype="float32"))
    assert type(loaded.model.get_submodule("model.layers.0.mlp.down_proj")) is nn.Linear
    assert logits_difference(logits(loaded.model), logits(meant)) < 1e-4


def test_on_a_gpu_all_layers_are_dequantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_gpu(*args: Any) -> None:
        lay_out(*args[:-1], torch.device("cuda"))

    meant = make_stored(tmp_path, gptq(), gptq_config())
    monkeypatch.setattr(model_module, "lay_out", on_a_gpu)
    loaded = load_model(tmp_path, Settings(model_id=str(tmp_path), threads=1, dtype="float32"))
    assert not any(isinstance(module, GroupedLinear) for module in loaded.model.modules())
    assert logits_difference(logits(loaded.model), logits(meant)) < 1e-4


@pytest.mark.parametrize("is_fast", [True, False])
def test_kernels_multiply_the_layers_and_the_output_layer_is_int8(
    is_fast: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meant = make_stored(tmp_path, awq(), awq_config())
    loaded = load_model(tmp_path, Settings(model_id=str(tmp_path), threads=1, dtype="float32"))
    kernels = replace(plain(), fast_products=lambda: (False, is_fast, is_fast, is_fast))
    with caplog.at_level(logging.INFO):
        prepare_quantized(loaded, kernels)
    made = loaded.model.get_submodule("model.layers.0.mlp.down_proj")
    assert type(made) is (NativeGroupedLinear if is_fast else nn.Linear)
    assert (type(loaded.model.get_output_embeddings()) is NativeInt8Linear) == is_fast
    assert ("awq weights of 14 linear layers are multiplied by the kern" in caplog.text) == is_fast
    assert logits_difference(logits(loaded.model), logits(meant)) < ROWS_OF_EIGHT_BITS


@pytest.mark.parametrize(("model_type", "kernels"), [("qwen2", "off"), ("qwen3", "on")])
def test_answers_do_not_depend_on_neighbours(model_type: str, kernels: str, tmp_path: Path) -> None:
    """Models with biases, and with norms of queries and keys."""
    make_stored(tmp_path, awq(), awq_config(), model_type=model_type)
    runner = make_runner(tmp_path, native_kernels=kernels)
    assert runner.info.quantization == "awq"
    requests = [
        greedy_request(index, prompt, 12) for index, prompt in enumerate(random_prompts(5, seed=4))
    ]
    together = answers(runner, requests, max_step_tokens=32)
    assert len({tuple(answer) for answer in together.values()}) == 5
    for request in requests:
        assert answers(runner, [request], max_step_tokens=512)[request.id] == together[request.id]


def test_parameters_are_counted_as_if_nothing_were_stored(tmp_path: Path) -> None:
    meant = make_stored(tmp_path, gptq(), gptq_config())
    assert make_runner(tmp_path).info.num_parameters == meant.num_parameters()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (gptq_config(bits=3), "GPTQ with 3 bits is not known here; 4 and 8 are"),
        (gptq_config(checkpoint_format="marlin"), "GPTQ in the layout 'marlin' is not known"),
        (gptq_config(is_marlin_format=True), "GPTQ in the layout 'marlin' is not known"),
        (gptq_config(pack_dtype="int16"), "GPTQ packed into int16 is not known"),
        (awq_config(version="gemv"), "AWQ in the layout 'gemv' is not known here; gemm is"),
        (awq_config(bits=8), "AWQ with 8 bits is not known"),
        (awq_config(zero_point=False), "AWQ without zero points"),
        (PACKED | {"kv_cache_scheme": {"num_bits": 8}}, "with a kv_cache_scheme is not known"),
        (PACKED | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "24-bitmask sparsity"),
        (compressed_config("pack-quantized", bits=2, group=32), "int weights of 2 bits"),
    ],
)
def test_unknown_variants_are_refused_by_name(
    config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    make_stored(tmp_path, gptq(), config)
    with pytest.raises(StartupError, match=re.escape(reason)):
        load_model(tmp_path, Settings(model_id=str(tmp_path)))


def test_static_activations_are_refused(tmp_path: Path) -> None:
    config = compressed_config("int-quantized", bits=8, group=None, inputs=True)
    config["config_groups"]["group_0"]["input_activations"]["dynamic"] = False
    make_stored(tmp_path, compressed(INT8), config)
    with pytest.raises(StartupError, match="input_activations other than dynamic int of 8 bits"):
        load_model(tmp_path, Settings(model_id=str(tmp_path)))


LAYER = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qzeros": None}, f"{LAYER}, stored as gptq: it has no qzeros"),
        ({"qweight": torch.zeros(7, 9).int()}, "its qweight is [7, 9], which is neither 4 nor 8"),
        ({"scales": torch.ones(6, 9)}, "its scales is [6, 9], not [6, 128]"),
        ({"scales": torch.ones(5, 128)}, "its scales has 5 groups for 192 inputs"),
        ({"g_idx": torch.full((192,), 6).int()}, "its g_idx names groups beyond its 6"),
        ({"input_scale": torch.ones(1)}, f"{LAYER} has a tensor that gptq does not know: input_s"),
    ],
)
def test_layers_of_another_layout_are_refused_by_name(
    changes: dict[str, Tensor | None], reason: str, tmp_path: Path
) -> None:
    make_stored(tmp_path, gptq(), gptq_config())
    change_tensors(tmp_path, {f"{LAYER}.{name}": value for name, value in changes.items()})
    with pytest.raises(StartupError, match=re.escape(reason)):
        load_model(tmp_path, Settings(model_id=str(tmp_path)))


def test_layers_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    make_stored(tmp_path, gptq(), gptq_config())
    change_tensors(tmp_path, {"model.layers.0.mlp.experts.0.qweight": torch.zeros(4, 4).int()})
    with pytest.raises(
        StartupError, match=r"experts.0 is stored as gptq, and LlamaForCausalLM has"
    ):
        load_model(tmp_path, Settings(model_id=str(tmp_path)))


def test_a_stored_checkpoint_is_not_quantised_again(tmp_path: Path) -> None:
    make_stored(tmp_path, awq(), awq_config())
    with pytest.raises(StartupError, match=r"--quantize: .*quantised already \(awq\); leave"):
        load_model(tmp_path, Settings(model_id=str(tmp_path), quantize="int4"))


def change_tensors(folder: Path, changes: dict[str, Tensor | None]) -> None:
    """Tensors added to a checkpoint or put in the place of others; None takes one out."""
    file = folder / "model.safetensors"
    tensors = {**load_file(file), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, file, metadata={"format": "pt"})
