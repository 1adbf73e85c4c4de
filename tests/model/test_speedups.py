"""Each optimisation can be switched off by itself; what is computed stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from millstream.core.plan import Chunk, Plan
from millstream.core.request import Request, SamplingParams
from millstream.model.build import build_runner
from millstream.model.cpu.kernels import Kernels
from millstream.model.decoder.stack import DecoderStack
from millstream.model.forward import Forward
from millstream.model.loading.model import load_model
from millstream.model.runner import ModelRunner
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model

PROMPT = (3, 1, 4, 1, 5, 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    make_model("llama", folder)
    return folder


def make_runner(folder: Path, speedups: Speedups) -> ModelRunner:
    settings = Settings(model_id=str(folder), max_concurrent_requests=4)
    return build_runner(load_model(folder, settings), settings, speedups=speedups)


def logits(runner: ModelRunner) -> torch.Tensor:
    request = Request(id=1, prompt=PROMPT, sampling=SamplingParams(), max_tokens=1)
    chunk = Chunk(request, PROMPT, 0, [0], list(PROMPT), is_last=True)
    return runner.logits(Plan((chunk,)))


def in_use(runner: ModelRunner) -> tuple[bool, bool, bool]:
    """Whether the layers are one module, one compiled call, and the whole model with them."""
    forward = runner.execution.forward
    assert isinstance(forward, Forward)
    stacks = [m for m in forward.model.modules() if isinstance(m, DecoderStack)]
    is_compiled = any(stack.compiled is not None for stack in stacks)
    return bool(stacks), is_compiled, forward.shortcut is not None


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        (Speedups(kernels="on"), (True, True, True)),
        (Speedups(kernels="on", whole_model=False), (True, True, False)),
        (Speedups(kernels="on", compiled_stack=False), (True, False, False)),
        (Speedups(kernels="on", stack=False), (False, False, False)),
        (Speedups(kernels="on", decoder=False), (False, False, False)),
        (Speedups(kernels="off"), (False, False, False)),
    ],
)
def test_what_is_switched_off_is_not_used(
    speedups: Speedups, expected: tuple[bool, bool, bool], folder: Path, kernels: Kernels
) -> None:
    plain = logits(make_runner(folder, Speedups(kernels="off")))
    runner = make_runner(folder, speedups)
    assert in_use(runner) == expected
    name = "native-paged" if speedups.kernels == "on" else "sdpa-paged"
    assert runner.info.attention_backend == name
    torch.testing.assert_close(logits(runner), plain, rtol=1e-3, atol=1e-4)


def test_the_flag_is_one_of_them() -> None:
    for choice in ("auto", "on", "off"):
        assert Speedups.of(Settings(native_kernels=choice)) == Speedups(kernels=choice)
