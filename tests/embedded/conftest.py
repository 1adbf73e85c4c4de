"""The demo model and a small random one, loaded once as a user would, and engines around them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from millstream import Engine
from millstream.model.loading.source import resolve
from millstream.model.runner import ModelRunner
from millstream.settings import Settings
from tests.model.architectures import make_model

DEMO = resolve(Settings(model_id="demo"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(DEMO)
    return tokenizer


@pytest.fixture(scope="session")
def model() -> PreTrainedModel:
    """The demo model in float32, as answers are compared token by token."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    return model


@pytest.fixture(scope="session")
def random_model(
    tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedModel:
    """Says nonsense in the demo model's vocabulary, without an end."""
    folder = tmp_path_factory.mktemp("random")
    return make_model("llama", folder, vocab_size=len(tokenizer))


@pytest.fixture(scope="module")
def engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[Engine]:
    """Shared by the tests of a module; each must leave it idle."""
    with Engine(model, tokenizer, max_concurrent_requests=8) as engine:
        yield engine


@pytest.fixture(autouse=True)
def idle_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a request or a block behind."""
    yield
    if "engine" in request.fixturenames:
        check_idle(request.getfixturevalue("engine"))


def check_idle(engine: Engine) -> None:
    """One more answer: by the time it is there, earlier cancellations have been honoured."""
    engine.generate(["Hi"], max_tokens=1, show_progress=False)
    statistics = engine.statistics
    assert statistics.num_blocks > 0
    assert (statistics.num_running, statistics.num_waiting, statistics.num_blocks_used) == (0, 0, 0)
    # Private: streams that nobody reads any more are the engine's own business.
    assert engine._session.client.num_open == 0


def on_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> None:
    """Calls `action` in the engine's thread before a step, counted from now."""
    real = ModelRunner.launch
    count = iter(range(1, 1_000_000))

    def launch(self: ModelRunner, plan: Any, *rest: Any) -> Any:
        if next(count) == number:
            action()
        return real(self, plan, *rest)

    monkeypatch.setattr(ModelRunner, "launch", launch)


def our_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name == "engine" or name.startswith("millstream")]
