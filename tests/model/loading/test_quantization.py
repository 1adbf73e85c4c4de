"""Quantised weights: close to the model, the same beside others, smaller, or refused."""

from __future__ import annotations

import importlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, TorchAoConfig

from millstream.errors import StartupError
from millstream.model import acceleration
from millstream.model.acceleration import prepare_quantized
from millstream.model.cpu import linears, packing
from millstream.model.cpu.kernels import Kernels, plain
from millstream.model.cpu.linears import Int8Linear, NativeInt8Linear
from millstream.model.cpu.packing import is_supported, pack_int8, pack_linears, quantize_output
from millstream.model.int4 import Int4Linear
from millstream.model.loading import quantization
from millstream.model.loading.checkpoint import build_skeleton
from millstream.model.loading.model import load_model
from millstream.model.loading.quantization import Scheme
from millstream.model.loading.source import resolve
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

DEMO = resolve(Settings())
CPU = torch.device("cpu")

# Greatest distance of the logits, relative to their length, on the demo model, which is trained.
DISTANCE: dict[Scheme, float] = {"int8": 0.06, "int4": 0.35}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    make_model("llama", folder, num_hidden_layers=2)
    return folder


def load(folder: Path, **options: Any) -> PreTrainedModel:
    return load_model(folder, Settings(model_id=str(folder), threads=1, **options)).model


@torch.inference_mode()
def logits(model: PreTrainedModel) -> Tensor:
    model.set_attn_implementation("eager")
    vocab = model.config.get_text_config().vocab_size
    ids = torch.arange(200).unsqueeze(0) * 37 % vocab
    out: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return out.float()


def quantized_linear(*, bias: bool, dtype: torch.dtype) -> tuple[nn.Linear, nn.Linear]:
    """A linear, and torchao's int8 version of it."""
    library = importlib.import_module("torchao.quantization")
    torch.manual_seed(1)
    exact = nn.Linear(96, 40, bias=bias, dtype=dtype)
    quantized = nn.Linear(96, 40, bias=bias, dtype=dtype)
    quantized.load_state_dict(exact.state_dict())
    config = library.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    library.quantize_(quantized, config)
    return exact, quantized


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_stay_close_to_the_trained_model(scheme: Scheme, dtype: str) -> None:
    expected = logits(load(DEMO, dtype="float32"))
    quantized = load(DEMO, dtype=dtype, quantize=scheme)
    assert (pack_int8(quantized) > 0) == (scheme == "int8")
    actual = logits(quantized)
    distance = ((actual - expected).norm() / expected.norm()).item()
    assert 1e-4 < distance < DISTANCE[scheme]
    agreement = (actual.argmax(-1) == expected.argmax(-1)).float().mean().item()
    assert agreement > (0.9 if scheme == "int8" else 0.5)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "qwen2"])
def test_answers_do_not_depend_on_neighbours(
    scheme: Scheme, model_type: str, tmp_path: Path
) -> None:
    make_model(model_type, tmp_path)
    runner = make_runner(tmp_path, quantize=scheme)
    requests = [
        greedy_request(index, prompt, 16) for index, prompt in enumerate(random_prompts(6, seed=4))
    ]
    together = answers(runner, requests, max_step_tokens=32)
    assert len({tuple(answer) for answer in together.values()}) == 6
    for request in requests:
        assert answers(runner, [request], max_step_tokens=512)[request.id] == together[request.id]
    assert runner.info.quantization == scheme


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_packed_int8_is_as_good_as_the_library(dtype: torch.dtype, bias: bool) -> None:
    exact, quantized = quantized_linear(bias=bias, dtype=dtype)
    packed = Int8Linear(quantized)
    hidden = torch.randn(1, 37, 96, dtype=dtype) * torch.logspace(-3, 3, 37)[:, None].to(dtype)
    with torch.inference_mode():
        expected = F.linear(
            hidden.double(), exact.weight.double(), exact.bias.double() if bias else None
        )
        ours, theirs = packed(hidden).double(), quantized(hidden).double()
    assert ours.shape == expected.shape
    norms = expected.norm(dim=-1)
    worst = ((ours - expected).norm(dim=-1) / norms).max()
    assert worst < 0.02
    assert worst < 1.3 * ((theirs - expected).norm(dim=-1) / norms).max()


@pytest.mark.parametrize("in_parts", [None, True])
def test_int8_sums_do_not_saturate(in_parts: bool | None) -> None:
    """The largest numbers there are: what two of them add up to does not fit into 16 bits."""
    _, quantized = quantized_linear(bias=False, dtype=torch.float32)
    hidden = torch.stack([quantized.weight.dequantize().sign()[0], torch.ones(96), -torch.ones(96)])
    with torch.inference_mode():
        weight = quantized.weight.qdata.double() * quantized.weight.scale.double().view(-1, 1)
        actual = Int8Linear(quantized, in_parts=in_parts)(hidden).double()
    torch.testing.assert_close(actual, hidden.double() @ weight.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_int8_is_the_same_to_the_bit_at_any_row_count(dtype: torch.dtype) -> None:
    """Whole numbers add up exactly in any order, and the rest is done row by row."""
    _, quantized = quantized_linear(bias=True, dtype=dtype)
    packed = Int8Linear(quantized)
    hidden = torch.randn(70, 96, generator=torch.Generator().manual_seed(5)).to(dtype)
    with torch.inference_mode():
        together = packed(hidden)
        for rows in (1, 2, 3, 15, 16, 17, 64):
            assert torch.equal(packed(hidden[:rows]), together[:rows])


def test_a_row_is_the_same_beside_a_huge_one() -> None:
    """With one scale for all rows, the huge one would round the others to nothing."""
    _, quantized = quantized_linear(bias=False, dtype=torch.float32)
    for linear in (quantized, Int8Linear(quantized)):
        hidden = torch.randn(16, 96, generator=torch.Generator().manual_seed(3))
        hidden[1:] *= 1000
        with torch.inference_mode():
            torch.testing.assert_close(linear(hidden)[:1], linear(hidden[:1]))


def test_rows_of_zeros_stay_finite() -> None:
    _, quantized = quantized_linear(bias=False, dtype=torch.float32)
    with torch.inference_mode():
        assert Int8Linear(quantized)(torch.zeros(2, 96)).abs().max() == 0


def test_not_a_number_is_not_hidden() -> None:
    """The engine fails requests whose logits are not finite; rounding must not make them finite."""
    _, quantized = quantized_linear(bias=False, dtype=torch.float32)
    hidden = torch.ones(2, 96)
    hidden[0, 3] = float("nan")
    with torch.inference_mode():
        out = Int8Linear(quantized)(hidden)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_int8_is_packed_and_bfloat16_packing_leaves_quantised_layers(folder: Path) -> None:
    model = load(folder, quantize="int8", dtype="bfloat16")
    assert pack_int8(model) == 14
    assert sum(type(module) is Int8Linear for module in model.modules()) == 14
    model = load(folder, quantize="int4", dtype="bfloat16")
    assert pack_linears(model) == int(is_supported())  # the output layer only
    assert sum(type(module) is Int4Linear for module in model.modules()) == 14


def test_without_the_packed_operators_the_library_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(linear: nn.Linear) -> None:
        raise RuntimeError("no such operator")

    packed, unpacked = load(folder, quantize="int8"), load(folder, quantize="int8")
    assert pack_int8(packed) == 14
    monkeypatch.setattr(packing, "Int8Linear", missing)
    assert pack_int8(unpacked) == 0
    assert F.cosine_similarity(logits(unpacked), logits(packed), dim=-1).min() > 0.98


def test_int8_by_the_compiled_kernel(folder: Path) -> None:
    """The kernel's layers give what oneDNN's give, up to the order of two roundings."""
    kernels = plain()
    fast = replace(kernels, fast_products=lambda: (False, True, True, False))
    native, library = load(folder, quantize="int8"), load(folder, quantize="int8")
    assert pack_int8(native, fast) == pack_int8(library, kernels) == 14
    assert sum(type(module) is NativeInt8Linear for module in native.modules()) == 14
    assert sum(type(module) is Int8Linear for module in library.modules()) == 14
    torch.testing.assert_close(logits(native), logits(library), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_at_once", [4096, 1000])
def test_the_output_layer_is_int8_by_the_compiled_kernel(dtype: str, channels_at_once: int) -> None:
    """On the trained demo model: its logits move by less than bfloat16 rounds them."""
    model = load(DEMO, dtype=dtype)
    embedding = model.get_input_embeddings().weight.clone()
    before = logits(model)
    assert quantize_output(model, fast_int8(), channels_at_once=channels_at_once)
    head = model.get_output_embeddings()
    assert type(head) is NativeInt8Linear
    assert head.packed.dtype == torch.int8
    assert head.packed.shape[3] == 2  # for rows of 12 bits
    after = logits(model)
    spread = before.std(dim=-1, keepdim=True)
    assert 1e-4 < ((after - before) / spread).square().mean().sqrt() < 1e-2
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert not quantize_output(model, fast_int8())  # it is no plain layer any more


def test_the_output_layer_is_kept_where_the_kernels_are_slow(folder: Path) -> None:
    model = load(folder)
    assert not quantize_output(model, plain())
    assert type(model.get_output_embeddings()) is nn.Linear


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_the_output_layer_is_int8_where_kernels_multiply_the_others(
    quantize: str, is_fast: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(model_id=str(folder), threads=1, quantize=quantize)
    loaded = load_model(folder, settings)
    fast = (False, is_fast and quantize == "int8", True, is_fast and quantize == "int4")
    with caplog.at_level(logging.INFO):
        prepare_quantized(loaded, replace(plain(), fast_products=lambda: fast))
    assert (type(loaded.model.get_output_embeddings()) is NativeInt8Linear) == is_fast
    assert ("the output layer is int8" in caplog.text) == is_fast
    shared = replace(load_model(folder, settings), is_shared=True)
    prepare_quantized(shared, fast_int8())
    assert type(shared.model.get_output_embeddings()) is nn.Linear


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_int4_without_kernels_is_computed_by_plain_layers(
    dtype: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(model_id=str(folder), threads=1, quantize="int4", dtype=dtype)
    loaded = load_model(folder, settings)
    expected = logits(loaded.model)
    with caplog.at_level(logging.INFO):
        prepare_quantized(loaded, None)
    assert "int4 weights of 14 linear layers are made" in caplog.text
    layers = [module for module in loaded.model.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 15
    assert {layer.weight.dtype for layer in layers} == {loaded.dtype}
    assert F.cosine_similarity(logits(loaded.model), expected, dim=-1).min() > 0.98


def test_int4_without_kernels_is_refused_where_plain_layers_do_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model_id=str(folder), threads=1, quantize="int4")
    loaded = load_model(folder, settings)
    monkeypatch.setattr(acceleration, "available_bytes", lambda device: 1000)
    prepare_quantized(loaded, fast_int4())
    loaded = load_model(folder, settings)
    with pytest.raises(StartupError, match=r"without compiled kernels .* int4 layers .* compiler"):
        prepare_quantized(loaded, fast_int8())


def test_int4_needs_no_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(quantization, "_torchao")
    assert sum(type(m) is Int4Linear for m in load(folder, quantize="int4").modules()) == 14


def test_what_int4_made_is_counted_as_it_was(folder: Path) -> None:
    plain_runner, runner = make_runner(folder), make_runner(folder, quantize="int4")
    assert runner.info.num_parameters == plain_runner.info.num_parameters
    assert runner.info.quantization == "int4"


def test_a_checkpoint_that_is_int8_keeps_its_output_layer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model_id=str(folder), threads=1)
    loaded = load_model(folder, settings)
    monkeypatch.setattr(acceleration, "pack_int8", lambda model, kernels: 14)
    prepare_quantized(loaded, fast_int8())
    assert type(loaded.model.get_output_embeddings()) is nn.Linear


def fast_int8() -> Kernels:
    return replace(plain(), fast_products=lambda: (False, True, True, False))


def fast_int4() -> Kernels:
    return replace(plain(), fast_products=lambda: (False, False, True, True))


def test_a_wrong_product_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _, quantized = quantized_linear(bias=False, dtype=torch.float32)
    model = nn.Sequential(quantized)
    monkeypatch.setattr(linears, "UNSIGNED_ZERO", 120)
    assert pack_int8(model) == 0
    assert model[0] is quantized


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8), ("int4", 4.25)])
def test_weights_take_what_was_foretold(scheme: Scheme, bits: float, folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    skeleton = build_skeleton(config, torch.bfloat16, trust_remote_code=False)
    plan = quantization.plan(scheme, skeleton, config, CPU)
    assert len(plan.quantized) == 14
    assert plan.kept == ("lm_head",)
    shapes = [skeleton.get_parameter(f"{name}.weight").shape for name in plan.quantized]
    linears = sum(shape.numel() for shape in shapes)
    everything = sum(parameter.numel() for parameter in skeleton.parameters())
    foretold = quantization.weight_bytes(skeleton, plan)
    assert foretold == (everything - linears) * 2 + linears * bits / 8
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=plan.config()
    )
    stored = 0
    for name in plan.quantized:
        layer: Any = model.get_submodule(name)
        stored += (layer.packed if scheme == "int4" else layer.weight.qdata).nbytes
    block = 64 if scheme == "int4" else 1
    assert stored == sum(-(-rows // block) * block * inputs for rows, inputs in shapes) * bits / 8
    assert type(model.get_output_embeddings().weight) is nn.Parameter


def test_layers_of_any_size_are_quantised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_model(
        "llama", tmp_path, hidden_size=40, head_dim=10, intermediate_size=72, num_hidden_layers=2
    )
    with caplog.at_level(logging.INFO, logger="millstream"):
        runner = make_runner(tmp_path, quantize="int4")
    assert "int4: 14 linear layers quantised, 1 kept as they are" in caplog.text
    request = greedy_request(0, (5, 6, 7), 4)
    assert len(answers(runner, [request], max_step_tokens=64)[0]) == 4


def test_a_model_without_such_layers_is_refused(tmp_path: Path) -> None:
    make_model("gpt2", tmp_path)  # its layers are of another class
    with pytest.raises(StartupError, match="--quantize: GPT2LMHeadModel has no linear layer"):
        load(tmp_path, quantize="int4")


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(StartupError, match=r"millstream\[quantize\]"):
        load(folder, quantize="int8")


def test_other_devices_are_refused(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    skeleton = build_skeleton(config, torch.bfloat16, trust_remote_code=False)
    with pytest.raises(StartupError, match="--quantize: int8 is implemented for the CPU only"):
        quantization.plan("int8", skeleton, config, torch.device("cuda"))


def test_a_quantised_checkpoint_is_served_but_not_quantised_again(
    folder: Path, tmp_path: Path
) -> None:
    library = importlib.import_module("torchao.quantization")
    config = TorchAoConfig(library.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
    model.save_pretrained(tmp_path)
    runner = make_runner(tmp_path)
    assert runner.info.quantization == "torchao"
    request = greedy_request(0, (5, 6, 7), 8)
    expected = answers(make_runner(folder, quantize="int8"), [request], max_step_tokens=64)
    assert answers(runner, [request], max_step_tokens=64) == expected
    with pytest.raises(StartupError, match=r"quantised already \(torchao\)"):
        load(tmp_path, quantize="int8")


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors"])
def test_a_checkpoint_that_needs_more_is_refused(method: str, tmp_path: Path) -> None:
    make_model("llama", tmp_path, num_hidden_layers=1)
    file = tmp_path / "config.json"
    config = AutoConfig.from_pretrained(tmp_path).to_dict()
    stored = {"quant_method": method, "bits": 4, "group_size": 32, "load_in_4bit": True}
    file.write_text(json.dumps(config | {"quantization_config": stored}), encoding="utf-8")
    with pytest.raises(StartupError) as caught:
        make_runner(tmp_path)
    assert "\n" not in caught.value.message


def test_a_checkpoint_quantised_by_an_unknown_method_is_refused(tmp_path: Path) -> None:
    make_model("llama", tmp_path, num_hidden_layers=1)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"quantization_config": {"quant_method": "homemade"}}))
    with pytest.raises(StartupError, match=r"does not know \(homemade\)"):
        load(tmp_path)
