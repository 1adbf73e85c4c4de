"""Products with few rows: when kernels of our own are used, and what is remembered of that."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from millstream.model import acceleration, build
from millstream.model.build import runner_factory
from millstream.model.cuda.few_row_linear import FewRowLinear
from millstream.model.cuda.product_choices import ProductChoices, ProductKind
from millstream.model.cuda.product_tiles import ROW_COUNTS, ProductTile, candidates
from millstream.model.cuda.product_trial import FewRowProducts, find_products
from millstream.model.decoder.parts import GatedMLP
from millstream.model.speedups import Speedups
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.test_cuda import run_all
from tests.model.cuda.test_fused_layers import as_on_a_device
from tests.model.test_architectures import greedy_request, random_prompts

ENVIRONMENT = {"device": "some card", "torch": "2.13", "triton": "3.6"}


class Card:
    """Stands in for a device. slow: rows for which our products are slower; broken: channels of
    tiles that cannot be run; error: of our results. products, timed: rows of what was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slow: set[int] = set()
        self.broken: set[int] = set()
        self.error = 0.0
        self.products: list[int] = []
        self.timed: list[int] = []

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None, tile: ProductTile) -> Tensor:
        if tile.channels in self.broken:
            raise RuntimeError("out of resource: shared memory")
        self.products.append(len(x))
        return F.linear(x, weight, bias) + self.error

    def seconds_of(self, computations: Sequence[Callable[[], object]]) -> float:
        first: Any = computations[0]
        x, weight = first.args[:2]
        assert all(one.args[1].equal(weight) for one in computations)  # type: ignore[attr-defined]
        is_ours = first.func == self.multiply
        if not is_ours:
            if self.timed[-1:] != [len(x)]:  # before our products and after them
                self.timed.append(len(x))
                return 9.0  # as when the device was idle
            return 1.0
        tile = first.args[3]
        return 1.1 if len(x) in self.slow else 0.5 + tile.channels / 1000

    def products_of(self, environment: dict[str, str] = ENVIRONMENT) -> FewRowProducts:
        choices = ProductChoices(self.folder, environment)
        return FewRowProducts(self.multiply, choices, cache_bytes=1000, seconds_of=self.seconds_of)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path / "products")


def make_linear(*, bias: bool = True, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 256, bias=bias, dtype=dtype).requires_grad_(False)


def test_the_fastest_way_is_taken_where_it_is_faster_than_torch(
    card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    card.slow = {16}
    linear = make_linear()
    packed = card.products_of().pack(linear)
    assert isinstance(packed, FewRowLinear)
    assert packed.weight is linear.weight
    assert "our kernels multiply 1, 4, 32 rows with weights of 256x64" in caplog.text
    for rows in range(41):
        card.products.clear()
        x = torch.randn(1, rows, 64).bfloat16()
        assert torch.equal(packed(x), linear(x))
        is_ours = rows in range(1, 5) or rows in range(17, 33)
        assert card.products == [rows] * is_ours


def test_the_smallest_time_wins(card: Card) -> None:
    card.broken = {4, 8}
    products = card.products_of()
    products.pack(make_linear())
    (path,) = card.folder.glob("*.json")
    choices = json.loads(path.read_text())["choices"]
    # The smallest tile is the fastest on this card, and those of 4 and 8 channels cannot be run.
    assert [tile[0] for tile in choices.values()] == [16, 16, 16, 16]


def test_rows_that_kernels_would_take_as_another_kind_are_left_to_torch(card: Card) -> None:
    packed = card.products_of().pack(make_linear())
    card.products.clear()
    wide = torch.randn(3, 68).bfloat16()
    for x in (wide[:, :64], wide.flatten()[1:129].view(2, 64)):
        assert torch.equal(packed(x), make_linear()(x))
    assert card.products == []


def test_weights_that_kernels_would_take_as_another_kind_are_left_to_torch(card: Card) -> None:
    linear = make_linear()
    linear.weight.data = torch.randn(256 * 64 + 1).bfloat16()[1:].view(256, 64)
    assert card.products_of().pack(linear) is linear


def test_what_is_as_fast_by_torch_stays_a_plain_layer(card: Card) -> None:
    card.slow = set(ROW_COUNTS)
    linear = make_linear()
    assert card.products_of().pack(linear) is linear


def test_float32_stays_torchs(card: Card) -> None:
    linear = make_linear(dtype=torch.float32)
    assert card.products_of().pack(linear) is linear
    assert card.timed == []


@pytest.mark.parametrize("is_small", [False, True])
def test_small_weights_are_not_copied_until_they_fill_the_cache(
    card: Card, *, is_small: bool
) -> None:
    linear = make_linear()
    products = FewRowProducts(
        card.multiply,
        ProductChoices(card.folder, ENVIRONMENT),
        cache_bytes=128 * linear.weight.nbytes + is_small,
        seconds_of=card.seconds_of,
    )
    assert isinstance(products.pack(linear), FewRowLinear) != is_small
    assert bool(card.timed) != is_small


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_wrong_products_are_not_used(card: Card, error: float) -> None:
    card.error = error
    linear = make_linear()
    assert card.products_of().pack(linear) is linear


def test_a_remembered_way_that_is_wrong_now_is_not_used(
    card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    card.products_of().pack(make_linear())
    card.error = 1.0
    linear = make_linear()
    assert card.products_of().pack(linear) is linear
    assert "products with 256x64 are left to torch: ArithmeticError: 1 rows" in caplog.text


def test_layers_of_one_shape_are_timed_once_and_remembered(card: Card) -> None:
    card.slow = {4}
    products = card.products_of()
    first = products.pack(make_linear())
    assert card.timed == list(ROW_COUNTS)
    assert isinstance(products.pack(make_linear()), FewRowLinear)
    assert isinstance(products.pack(make_linear(bias=False)), FewRowLinear)
    # The next start.
    again = card.products_of().pack(make_linear())
    assert card.timed == list(ROW_COUNTS)
    card.products.clear()
    for rows in range(1, 33):
        x = torch.randn(rows, 64).bfloat16()
        assert torch.equal(first(x), again(x))
    assert sorted(card.products) == sorted([1, *range(5, 33)] * 2), "and nothing else is used"


@pytest.mark.parametrize("name", list(ENVIRONMENT))
def test_another_device_or_library_is_timed_anew(card: Card, name: str) -> None:
    card.products_of().pack(make_linear())
    card.products_of({**ENVIRONMENT, name: "another"}).pack(make_linear())
    assert card.timed == 2 * list(ROW_COUNTS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"choices": 3}',
        '{"choices": {"bfloat16 256x64, 1 rows": [1, 2, 3, 4, 5]}}',
        '{"choices": {"bfloat16 256x64, 1 rows": "fast"}}',
    ],
)
def test_a_damaged_file_costs_a_timing(card: Card, text: str) -> None:
    card.products_of().pack(make_linear())
    (path,) = card.folder.glob("*.json")
    kept = path.read_text()
    path.write_text(text)
    assert isinstance(card.products_of().pack(make_linear()), FewRowLinear)
    assert card.timed == 2 * list(ROW_COUNTS)
    assert path.read_text() == kept


def test_a_folder_that_cannot_be_written_costs_a_line(
    card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    card.folder.write_text("a file")
    assert isinstance(card.products_of().pack(make_linear()), FewRowLinear)
    assert "timings of products are not kept" in caplog.text


def test_two_starts_at_once_keep_what_both_found(tmp_path: Path) -> None:
    kinds = [ProductKind(torch.float16, 64, size, 1) for size in (64, 128)]
    tile = candidates(64, 64, 1)[0]
    first, second = (ProductChoices(tmp_path, ENVIRONMENT) for _ in range(2))
    first.note({kinds[0]: tile})
    second.note({kinds[1]: None})
    both = ProductChoices(tmp_path, ENVIRONMENT)
    assert [both.find(kind) for kind in kinds] == [(True, tile), (True, None)]


def test_a_machine_without_a_device_leaves_products_to_torch(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    caplog.set_level("INFO")
    assert find_products(torch.device("cuda"), folder=tmp_path) is None
    assert "products with few rows are left to torch" in caplog.text


@pytest.mark.parametrize(("family", "is_stack"), [("llama", True), ("gemma2", False)])
def test_a_model_answers_as_before(
    family: str,
    card: Card,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_stack: bool,
) -> None:
    """Layers that run as one module, and layers that run as they are; the output layer, too."""
    make_model(family, tmp_path / family)
    requests = [greedy_request(i, p, 8) for i, p in enumerate(random_prompts(4, seed=2), 1)]
    found: dict[bool, Any] = {}
    monkeypatch.setattr(acceleration, "find_products", lambda *_, **__: card.products_of())
    for is_used in (False, True):
        settings = Settings(
            model_id=str(tmp_path),
            block_size=8,
            dtype="bfloat16",
            threads=1,
            max_concurrent_requests=8,
        )
        speedups = Speedups(few_row_products=is_used)
        with as_on_a_device() as stacks:
            runner = runner_factory(tmp_path / family, settings, speedups)()
        assert bool(card.products) == is_used
        card.products.clear()
        found[is_used] = run_all(runner, requests, random.Random(0))
    assert found[True] == found[False]
    assert set(card.products) >= {1, 2}
    modules = list(runner.execution.forward.model.modules())  # type: ignore[attr-defined]
    assert not any(type(module) is nn.Linear for module in modules)
    assert any(isinstance(module, FewRowLinear) for module in modules), "the output layer"
    assert bool(stacks) == is_stack
    for layer in stacks[0].layers if is_stack else ():
        assert isinstance(layer.mlp, GatedMLP)
        for joined in (layer.qkv, layer.out, layer.mlp.inner, layer.mlp.down):
            assert [type(linear) for linear in joined.linears] == [FewRowLinear]


def test_what_timings_have_used_is_free_when_the_cache_is_sized(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    make_caches = build.make_caches

    def make_and_note(*others: Any, **options: Any) -> Any:
        events.append("sized")
        return make_caches(*others, **options)

    def note_return() -> None:
        assert card.products, "after the timings"
        events.append("returned")

    make_model("llama", tmp_path / "llama")
    monkeypatch.setattr(acceleration, "find_products", lambda *_, **__: card.products_of())
    monkeypatch.setattr(torch.cuda, "empty_cache", note_return)
    monkeypatch.setattr(build, "make_caches", make_and_note)
    settings = Settings(model_id=str(tmp_path), block_size=8, dtype="bfloat16", threads=1)
    with as_on_a_device():
        runner_factory(tmp_path / "llama", settings)()
    assert events == ["returned", "sized"]
