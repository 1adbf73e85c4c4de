"""The parts of --batch-invariant by themselves: tiles of rows, operators, attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from millstream.core.plan import Chunk, Plan
from millstream.errors import StartupError
from millstream.model.attention import LayerOptions
from millstream.model.cpu.packing import is_supported
from millstream.model.invariant import attention_tiles
from millstream.model.invariant.attention_tiles import Tiles, find_tiles
from millstream.model.invariant.operators import InvariantOperators
from millstream.model.invariant.row_tiles import find_sizes, multiply, trial_matrix, trial_rows
from millstream.model.invariant.tiled_backend import TiledBackend
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.packer import Packer
from tests.model.test_architectures import greedy_request

CPU = torch.device("cpu")


def sums_up(rows: Tensor) -> Tensor:
    """A product whose kernel adds in another order for 3 rows or fewer, and for 64 or more."""
    order = 1 if 4 <= rows.shape[-2] < 64 else -1
    values = rows if order == 1 else rows.flip(-1)
    total = values[..., :1] * 0
    for column in range(values.shape[-1]):
        total = total + values[..., column : column + 1]
    return total


def depends_on_place(rows: Tensor) -> Tensor:
    """A kernel that takes every second row in another order."""
    return torch.cat(
        [sums_up((row if i % 2 else row.flip(-1)).expand(8, -1))[:1] for i, row in enumerate(rows)]
    )


def test_only_row_counts_that_give_the_same_bits_are_used() -> None:
    vectors = trial_rows(64, lead=(), dtype=torch.float32)
    assert find_sizes(sums_up, vectors) == (4, 8, 16, 32)


def test_a_product_that_depends_on_the_place_is_refused() -> None:
    vectors = trial_rows(64, lead=(), dtype=torch.float32)
    with pytest.raises(StartupError, match="where in a batch a row stands"):
        find_sizes(depends_on_place, vectors)


@pytest.mark.parametrize("sizes", [(16,), (4, 8, 16, 32), (1, 2, 4, 8, 16, 32, 64)])
def test_tiles_cover_every_row_once(sizes: tuple[int, ...]) -> None:
    seen: list[int] = []

    def product(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return rows * 2

    for count in range(2, 150):
        rows = torch.arange(count * 16, dtype=torch.float32).view(count, 16)
        assert torch.equal(multiply(product, rows, sizes), rows * 2)
        # A slice of other memory has other alignment.
        assert torch.equal(
            multiply(product, rows.flatten()[1:-15].view(-1, 16), sizes),
            rows.flatten()[1:-15].view(-1, 16) * 2,
        )
    assert set(seen) <= set(sizes)


@pytest.mark.parametrize("shape", [(40, 64), (3, 40, 64)])
def test_trial_products_are_exactly_zero(shape: tuple[int, ...]) -> None:
    """So that rounding is all that is left of them, in the layout of the model's own matrix."""
    memory = torch.empty(10_000)
    like = memory[3 : 3 + torch.Size(shape).numel()].view(shape).transpose(-1, -2)
    matrix = trial_matrix(like, contracted=-2)
    assert (matrix.shape, matrix.stride()) == (like.shape, like.stride())
    assert matrix.data_ptr() % 64 == like.data_ptr() % 64
    rows = trial_rows(64, lead=shape[:-2], dtype=torch.float32)
    assert rows.abs().sum() > 0
    exact = rows.double() @ matrix.double()
    assert exact.abs().max() < 1e-12
    assert matrix.abs().sum() > 0


FUNCTIONS: list[Callable[[Tensor], Tensor]] = [
    F.silu,
    torch.sigmoid,
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: torch.rsqrt(x.abs() + 1),
    lambda x: (x.abs() + 1) ** 1.3,
    F.softplus,
]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
@pytest.mark.usefixtures("two_threads")
def test_functions_do_not_depend_on_the_rows_beside(number: int, dtype: torch.dtype) -> None:
    """Widths that are no multiple of a vector, and sizes that two threads share."""
    function = FUNCTIONS[number]
    for width in (3, 60, 1100):
        rows = torch.randn(90, width, generator=torch.Generator().manual_seed(1)).to(dtype) * 3
        with InvariantOperators():
            whole = function(rows)
            for count in (1, 2, 7, 31):
                parts = [function(rows[i : i + count]) for i in range(0, 90, count)]
                assert torch.equal(torch.cat(parts), whole)
        torch.testing.assert_close(whole, function(rows))


def test_inplace_functions_stay_inplace() -> None:
    rows = torch.randn(5, 7)
    expected = F.silu(rows)
    with InvariantOperators():
        returned = F.silu(rows, inplace=True)
    torch.testing.assert_close(rows, expected)
    assert returned is rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_do_not_depend_on_the_rows_beside(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(70, 1536, generator=generator).to(dtype)
    weight = torch.randn(48, 1536, generator=generator).to(dtype)
    bias = torch.randn(48, generator=generator).to(dtype)
    products: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.linear(x, weight, bias),
        lambda x: x @ weight.t(),
        lambda x: torch.addmm(bias, x, weight.t()),
        lambda x: torch.bmm(x.expand(2, -1, -1), weight.t().expand(2, -1, -1))[0],
        lambda x: torch.matmul(x.unsqueeze(0), weight.t().unsqueeze(0))[0],
    ]
    if is_supported():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        products.append(
            lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        )
    for product in products:
        with InvariantOperators():
            whole = product(rows)
            for count in (1, 3, 5, 20):
                parts = [product(rows[i : i + count]) for i in range(0, 70, count)]
                assert torch.equal(torch.cat(parts), whole)
        torch.testing.assert_close(whole, product(rows), rtol=0.02, atol=0.1)


OPTIONS = {
    "plain": LayerOptions(0.25),
    "window": LayerOptions(0.25, window=40),
    "softcap": LayerOptions(0.25, window=40, softcap=5.0),
    "sinks": LayerOptions(0.25, sinks=torch.linspace(-2, 3, 6)),
}


def make_cache(dtype: torch.dtype, *, value_dim: int) -> KVCache:
    shapes = {0: LayerShape(2, 16, value_dim)}
    cache = KVCache(shapes, num_blocks=90, block_size=24, dtype=dtype, device=CPU)
    generator = torch.Generator().manual_seed(3)
    for tensor in (cache.keys[0], cache.values[0]):
        tensor[:-1] = torch.randn(tensor[:-1].shape, generator=generator).to(dtype)
    return cache


def chunk(number: int, start: int, length: int, table: list[int]) -> Chunk:
    tokens = [1] * length
    return Chunk(greedy_request(number, (1,), 1), tokens, start, table, tokens, is_last=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value_dim", [16, 24])
def test_attention_is_right_and_the_same_in_any_batch(
    name: str, value_dim: int, dtype: torch.dtype
) -> None:
    """Three query heads to a key head; contexts over several numbers of keys, and over 512."""
    length, options = 700, OPTIONS[name]
    table = list(range(30))[::-1]
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(length, 6, 16, generator=generator).to(dtype)

    def attend(packer: Packer, plan: Plan, rows: Tensor) -> Tensor:
        # The cache holds what it holds: each row writes back what is there.
        batch = packer.pack(plan).batch
        slots = batch.step.slots
        keys = cache.keys[0].flatten(0, 1)[slots]
        values = cache.values[0].flatten(0, 1)[slots]
        return batch.attend(0, rows, keys, values, options)

    cache = make_cache(dtype, value_dim=value_dim)
    packer = Packer(cache, [TiledBackend(cache.padding_block)])
    whole = attend(packer, Plan((chunk(0, 0, length, table),)), query)
    default = attend(Packer(cache), Plan((chunk(0, 0, length, table),)), query)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(whole, default, rtol=tolerance, atol=tolerance)
    for start, end in [(0, 7), (60, 70), (100, 101), (377, 391), (500, 530), (699, 700)]:
        # A prompt chunk of another sequence goes last, a decode row of a third one first.
        plan = Plan(
            (chunk(2, 50, 1, list(range(60, 64))), chunk(0, start, end - start, table))
            if end - start > 1
            else (chunk(0, start, 1, table), chunk(2, 50, 1, list(range(60, 64)))),
        )
        beside = query[:1] if end - start > 1 else query[start:end]
        rows = query[start:end] if end - start > 1 else query[:1]
        out = attend(packer, plan, torch.cat([beside, rows]))
        found = out[1:] if end - start > 1 else out[:1]
        assert torch.equal(found, whole[start:end])
    together = [70, 100, 40, 300, 699]  # decode rows with other numbers of keys each
    plan = Plan(tuple(chunk(i, row, 1, table) for i, row in enumerate(together)))
    assert torch.equal(attend(packer, plan, query[together]), whole[together])
    for row in (0, 63, 64, 390, 512, 699):
        assert torch.equal(
            attend(packer, Plan((chunk(0, row, 1, table),)), query[row : row + 1]),
            whole[row : row + 1],
        )


def test_attention_tiles_that_give_other_bits_are_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = torch.zeros(1, 2, 8, 16)
    real = F.scaled_dot_product_attention

    def odd(query: Tensor, *args: Tensor, **options: object) -> Tensor:
        """Other bits below 16 rows, and beside other tiles."""
        out = real(query, *args, **options)  # type: ignore[arg-type]
        return out * (1 + 2e-7) if query.shape[2] < 16 or len(query) > 1 else out

    monkeypatch.setattr(
        "millstream.model.invariant.attention_tiles.F.scaled_dot_product_attention", odd
    )
    found = find_tiles(3, keys, keys, LayerOptions(0.25))
    assert found == Tiles(rows=16, positions=10, large_rows=32, is_batched=False)


def test_attention_that_depends_on_the_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = torch.zeros(1, 2, 8, 16)
    real = attention_tiles.attend_tiles

    def uneven(query: Tensor, *args: object) -> Tensor:
        out = real(query, *args)  # type: ignore[arg-type]
        out[:, :, 1] *= 1 + 2e-7
        return out

    monkeypatch.setattr("millstream.model.invariant.attention_tiles.attend_tiles", uneven)
    with pytest.raises(StartupError, match="where in a batch a row stands"):
        find_tiles(3, keys, keys, LayerOptions(0.25))
