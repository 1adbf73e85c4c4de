"""The engine as an object: what it leaves untouched, what it refuses, how it ends."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import millstream
from millstream import Engine
from millstream.errors import ShuttingDown, StartupError
from millstream.model import attention
from millstream.model.build import build_runner
from millstream.model.cpu import packing
from millstream.model.cpu.linears import PackedLinear
from millstream.model.loading.sharing import share_model
from millstream.settings import Settings
from tests.embedded.conftest import DEMO, check_idle, our_threads
from tests.model.architectures import greedy


def describe(model: PreTrainedModel) -> dict[str, Any]:
    """All that an engine could change of a model."""
    return {
        "attention": model.config._attn_implementation,
        "modules": [(name, id(module), type(module)) for name, module in model.named_modules()],
        "tensors": [
            (name, id(t), t.data_ptr()) for name, t in model.state_dict(keep_vars=True).items()
        ],
        "training": [module.training for module in model.modules()],
        "sum": sum(parameter.double().sum().item() for parameter in model.parameters()),
    }


def test_a_notebook_shows_what_an_engine_is(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with Engine(model, tokenizer, max_concurrent_requests=2, max_queue_size=3) as engine:
        shown = f"{engine.info.architecture} on cpu, float32"
        assert repr(engine) == f"<Engine {shown}: 5 of 5 places free>"
    assert repr(engine) == f"<Engine {engine.info.architecture}, closed>"
    with Engine(model, tokenizer) as engine:
        assert repr(engine) == f"<Engine {shown}: 0 answers open, any number may wait>"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_left_as_it_is(tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=dtype).train()
    before = describe(model)
    with Engine(model, tokenizer) as engine:
        assert engine.info.dtype == str(dtype).removeprefix("torch.")
        engine.generate(["Count to 5"], show_progress=False)
        assert describe(model) == before
    assert describe(model) == before
    assert before["attention"] != attention.ATTENTION_NAME


def test_weights_are_shared_not_copied(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with Engine(model, tokenizer) as engine:
        (before,) = engine.generate(["Count to 5"], cache_salt="a", show_progress=False)
        kept = model.lm_head.weight.detach().clone()
        try:
            with torch.no_grad():
                model.lm_head.weight.zero_()
            (after,) = engine.generate(
                ["Count to 5"], cache_salt="b", max_tokens=2, show_progress=False
            )
        finally:
            with torch.no_grad():
                model.lm_head.weight.copy_(kept)
    assert (before.text, after.token_ids) == ("1\n2\n3\n4\n5", (0,))


@pytest.mark.parametrize("is_shared", [True, False])
def test_shared_weights_are_not_held_twice(*, is_shared: bool) -> None:
    """Laid out anew, beside the owner's, they would be."""
    settings = Settings(kv_cache_memory=2**23)
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.bfloat16)
    loaded = replace(share_model(model, settings), is_shared=is_shared)
    build_runner(loaded, settings)
    num_packed = sum(isinstance(module, PackedLinear) for module in loaded.model.modules())
    assert (num_packed > 0) == (packing.is_supported() and not is_shared)


def test_the_model_can_be_used_beside_the_engine(
    random_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    expected = greedy(random_model, (5, 6, 7), 10)
    with Engine(random_model, tokenizer) as engine, Engine(random_model, tokenizer) as other:
        stream = engine.complete([5, 6, 7], ignore_eos=True, temperature=0, max_tokens=10)
        first = next(stream).token_ids
        assert greedy(random_model, (5, 6, 7), 10) == expected
        assert [*first, *(token for delta in stream for token in delta.token_ids)] == expected
        (answer,) = other.generate(
            [[5, 6, 7]], ignore_eos=True, temperature=0, max_tokens=10, show_progress=False
        )
        assert list(answer.token_ids) == expected


def test_the_tokenizer_is_left_as_it_is(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.backend_tokenizer.enable_truncation(3)
    try:
        with Engine(model, tokenizer) as engine:
            (answer,) = engine.generate(["Count to 5"], show_progress=False)
        assert answer.text == "1\n2\n3\n4\n5"
        assert tokenizer.backend_tokenizer.truncation["max_length"] == 3
    finally:
        tokenizer.backend_tokenizer.no_truncation()


def test_the_models_generation_config_counts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    newline = tokenizer.encode("\n", add_special_tokens=False)[0]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [newline])
    monkeypatch.setattr(model.generation_config, "do_sample", True)
    monkeypatch.setattr(model.generation_config, "temperature", 0.25)
    with Engine(model, tokenizer) as engine:
        assert newline in engine.info.stop_token_ids
        assert engine.info.defaults.temperature == 0.25
        assert engine.generate(["Count to 5"], temperature=0, show_progress=False)[0].text == "1"


def test_from_pretrained(tmp_path: Path) -> None:
    with Engine.from_pretrained("demo", dtype="bfloat16", max_concurrent_requests=3) as engine:
        assert engine.info.dtype == "bfloat16"
        assert engine.generate(["Count to 5"], show_progress=False)[0].text == "1\n2\n3\n4\n5"
    with Engine.from_pretrained(DEMO) as engine:
        check_idle(engine)
    with pytest.raises(StartupError, match=str(tmp_path)):
        Engine.from_pretrained(tmp_path / "nothing")


def test_a_conversation_outlives_the_engine(tmp_path: Path) -> None:
    history = [
        {"role": "user", "content": "Count to 10, and say it all in a long row. " * 12},
        {"role": "assistant", "content": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"},
        {"role": "user", "content": "Count to 5"},
    ]
    threads = our_threads()
    found = []
    for folder in (tmp_path, tmp_path, None):
        with Engine.from_pretrained("demo", cache_folder=folder) as engine:
            answer = engine.generate([history], temperature=0.0, show_progress=False)[0]
            found.append((answer.text, answer.usage.cached_tokens > 200))
    assert our_threads() == threads
    assert [is_cached for _, is_cached in found] == [False, True, False]
    assert len({text for text, _ in found}) == 1


def test_close_ends_all_threads_and_more_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = our_threads()
    engine = Engine(model, tokenizer)
    stream = engine.chat("Count to 5", ignore_eos=True)
    next(stream)
    assert len(our_threads()) > len(before)
    engine.close()
    engine.close()
    assert our_threads() == before
    with pytest.raises(ShuttingDown, match="closed"):
        next(stream)
    with pytest.raises(ShuttingDown, match="closed"):
        next(engine.chat("Hi"))
    with pytest.raises(ShuttingDown, match="closed"):
        engine.generate(["Hi"], show_progress=False)


async def test_closed_engines_refuse_asynchronously_too(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = our_threads()
    async with Engine(model, tokenizer) as engine:
        stream = engine.chat("Count to 5", ignore_eos=True)
        await anext(stream)
    assert our_threads() == before
    with pytest.raises(ShuttingDown, match="closed"):
        await anext(stream)


def test_a_dropped_engine_closes_itself(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = our_threads()
    engine = Engine(model, tokenizer)
    stream = engine.chat("Count to 5", ignore_eos=True)
    del engine
    next(stream)  # keeps it alive
    del stream
    gc.collect()
    assert our_threads() == before


def test_a_program_that_forgets_to_close_ends() -> None:
    code = (
        "from millstream import Engine\n"
        "engine = Engine.from_pretrained('demo')\n"
        "stream = engine.chat('Count to 5', ignore_eos=True)\n"
        "print(next(stream).text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0
    # One token, or more if the engine was ahead of the reader.
    assert done.stdout.startswith("1\n")
    assert "Traceback" not in done.stderr
    assert "millstream." not in done.stderr


def test_what_cannot_be_served_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = our_threads()
    config = OPTConfig(
        vocab_size=64,
        hidden_size=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=16,
    )
    wrong: list[tuple[Any, type[Exception], str]] = [
        ("demo", TypeError, "not str"),
        (torch.nn.Linear(2, 2), TypeError, "not Linear"),
        (AutoModel.from_pretrained(DEMO), StartupError, "AutoModelForCausalLM"),
        (AutoModelForCausalLM.from_config(config).double(), StartupError, "float64"),
        (AutoModelForCausalLM.from_pretrained(DEMO).to("meta"), StartupError, "meta"),
    ]
    for refused, error, message in wrong:
        with pytest.raises(error, match=message):
            Engine(refused, tokenizer)
    slow: Any = object()
    with pytest.raises(TypeError, match="fast"):
        Engine(model, slow)
    assert our_threads() == before


def test_a_model_on_two_devices_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO)
    model.model.layers[0].to("meta")
    with pytest.raises(StartupError, match="cpu, meta"):
        Engine(model, tokenizer)


def test_importing_millstream_is_light() -> None:
    code = (
        "import sys, millstream; assert 'Engine' in dir(millstream);"
        "sys.exit(bool({'torch', 'transformers', 'pydantic', 'zmq'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_exported() -> None:
    for name in millstream.__all__:
        assert getattr(millstream, name) is not None
    with pytest.raises(AttributeError, match="Motor"):
        _ = millstream.Motor  # type: ignore[attr-defined]
