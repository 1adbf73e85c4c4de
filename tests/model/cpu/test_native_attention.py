"""Models served with the compiled kernels answer as without, and in any schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.errors import StartupError
from millstream.model.cpu import kernels as native
from tests.model.architectures import greedy, make_model
from tests.model.test_architectures import answers, greedy_request, make_runner, random_prompts

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.mark.parametrize(
    "model_type", ["llama", "mistral", "qwen3", "gemma2", "gpt_oss", "deepseek_v2", "phimoe"]
)
def test_equals_generate(model_type: str, tmp_path: Path) -> None:
    model = make_model(model_type, tmp_path)
    prompts = random_prompts(6, seed=1)
    expected = {index: greedy(model, prompt, 40) for index, prompt in enumerate(prompts)}
    runner = make_runner(tmp_path, block_size=8, native_kernels="on")
    assert runner.info.attention_backend == "native-paged"
    requests = [greedy_request(index, prompt, 40) for index, prompt in enumerate(prompts)]
    assert answers(runner, requests, max_step_tokens=32) == expected
    # Few blocks, so that some are preempted and find their prefix again.
    assert answers(runner, requests, max_step_tokens=24, num_blocks=26) == expected


def test_wrong_kernels_are_noticed_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: native.Kernels
) -> None:
    make_model("llama", tmp_path)

    def load() -> native.Kernels:
        def twice_as_sharp(*args: object, scale: float, **options: object) -> object:
            return kernels.paged_attention_decode(*args, scale=2 * scale, **options)

        values = {name: getattr(kernels, name) for name in kernels.__slots__}
        return native.Kernels(**values | {"paged_attention_decode": twice_as_sharp})

    monkeypatch.setattr(native, "load", load)
    with pytest.raises(StartupError, match="computes other logits"):
        make_runner(tmp_path, native_kernels="on")


@pytest.mark.parametrize("options", [{}, {"native_kernels": "off"}], ids=["small model", "off"])
def test_kernels_are_not_compiled_for_nothing(
    options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("llama", tmp_path)

    def load() -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(native, "load", load)
    assert make_runner(tmp_path, **options).info.attention_backend == "sdpa-paged"
