"""Every attention backend of the CPU computes what plain torch does, from the same step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from millstream.model import reference
from millstream.model.attention import LayerOptions
from millstream.model.cpu.kernels import Kernels
from millstream.model.cpu.native_backend import NativeBackend
from millstream.model.invariant.tiled_backend import TiledBackend
from millstream.model.paging.backend import AttentionBackend, PagedAttention
from millstream.model.paging.gathered import GatheredBackend, decode_groups, similar_lengths
from millstream.model.paging.kv_cache import KVCache, LayerShape
from millstream.model.paging.step import HostSpan, PagedStep, Span

BLOCK_SIZE, NUM_BLOCKS, HEADS, KV_HEADS, DIM, VALUE_DIM = 8, 90, 6, 2, 16, 24
STARTS = np.array(
    [0, 5, 63, 64, 200, 311]
)  # decode rows: of several groups, however those are made
CHUNKS = np.array([0, 37, 150]), np.array([20, 1, 70])  # starts and lengths
OPTIONS = {
    "plain": LayerOptions(0.25),
    "window": LayerOptions(0.25, window=19),
    "softcap": LayerOptions(0.25, softcap=5.0, window=100),
    "chunk": LayerOptions(0.25, chunk=50),
    "small chunk": LayerOptions(0.25, chunk=8, softcap=5.0),
    "sinks": LayerOptions(0.25, sinks=torch.linspace(-1, 2, HEADS)),
}


def random(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def make_cache() -> KVCache:
    cache = KVCache(
        {0: LayerShape(KV_HEADS, DIM, VALUE_DIM)},
        num_blocks=NUM_BLOCKS,
        block_size=BLOCK_SIZE,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    for tensor in (cache.keys[0], cache.values[0]):
        tensor[:NUM_BLOCKS] = random(*tensor[:NUM_BLOCKS].shape)
    return cache


def make_span(starts: np.ndarray, lengths: np.ndarray) -> Span:  # type: ignore[type-arg]
    """Block tables over each other's blocks, in random order, padded behind their ends."""
    blocks = -(-(starts + lengths) // BLOCK_SIZE)
    source = np.random.default_rng(1)
    tables = np.full((len(starts), blocks.max()), NUM_BLOCKS, np.int32)
    for table, count in zip(tables, blocks, strict=True):
        table[:count] = source.permutation(NUM_BLOCKS)[:count]
    return HostSpan.of_chunks(tables, starts, lengths).put(torch.from_numpy)


def make_backend(name: str, kernels: Kernels) -> AttentionBackend:
    if name == "native":
        return NativeBackend(kernels)
    return TiledBackend(NUM_BLOCKS) if name == "tiled" else GatheredBackend()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["gathered", "native", "tiled"])
def test_a_backend_computes_what_plain_torch_does(
    name: str, options: LayerOptions, kernels: Kernels
) -> None:
    cache, backend = make_cache(), make_backend(name, kernels)
    if name == "native" and options.chunk is not None:
        assert not backend.handles(options)
        return
    assert backend.handles(options)
    decodes, prompts = make_span(STARTS, np.ones_like(STARTS)), make_span(*CHUNKS)
    count = len(STARTS)
    query = random(count + int(CHUNKS[1].sum()), HEADS, DIM)
    expected = [
        reference.paged_attention_prefill(
            rows,
            cache.keys[0],
            cache.values[0],
            span.tables,
            span.starts,
            span.lengths,
            scale=options.scale,
            window=options.window,
            softcap=options.softcap,
            sinks=options.sinks,
            chunk=options.chunk,
        )
        for span, rows in ((decodes, query[:count]), (prompts, query[count:]))
    ]
    step = PagedStep(torch.arange(len(query)), decodes, prompts)
    assert step.num_positions == 312
    for _ in range(2):  # the second layer finds what the first one worked out
        found = PagedAttention(step, cache, [backend]).attend_cached(0, query, options)
        torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-5)
    for alone, rows, truth in (
        (PagedStep(step.slots, decodes, None), query[:count], expected[0]),
        (PagedStep(step.slots, None, prompts), query[count:], expected[1]),
    ):
        found = PagedAttention(alone, cache, [backend]).attend_cached(0, rows, options)
        torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


def test_rows_of_similar_length_are_attended_together() -> None:
    span = make_span(STARTS, np.ones_like(STARTS))
    groups = decode_groups(span, similar_lengths(span, BLOCK_SIZE), BLOCK_SIZE)
    rows = [group.rows.tolist() for group in groups if isinstance(group.rows, Tensor)]
    assert rows == [[0, 1, 2], [3], [4], [5]]
    assert [group.tables.shape for group in groups] == [(3, 8), (1, 9), (1, 26), (1, 39)]
    short = make_span(STARTS[:3], np.ones_like(STARTS[:3]))
    (group,) = decode_groups(short, similar_lengths(short, BLOCK_SIZE), BLOCK_SIZE)
    assert group.tables is short.tables


class WithoutSoftcap(GatheredBackend):
    """Notes how often it was asked to decode."""

    num_decodes = 0

    def handles(self, options: LayerOptions) -> bool:
        return options.softcap is None

    def decode(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, options: LayerOptions
    ) -> Tensor:
        self.num_decodes += 1
        return super().decode(query, keys, values, span, options)


def test_the_first_backend_that_handles_the_options_is_asked() -> None:
    first, last = WithoutSoftcap(), GatheredBackend()
    step = PagedStep(torch.arange(1), make_span(np.array([3]), np.array([1])), None)
    batch = PagedAttention(step, make_cache(), [first, last])
    for name, count in {"plain": 1, "softcap": 1, "sinks": 2}.items():
        batch.attend_cached(0, random(1, HEADS, DIM), OPTIONS[name])
        assert first.num_decodes == count


def test_new_keys_and_values_are_stored_before_anything_is_read() -> None:
    cache = make_cache()
    span = make_span(np.array([0]), np.array([1]))
    slot = int(span.tables[0, 0]) * BLOCK_SIZE
    batch = PagedAttention(PagedStep(torch.tensor([slot]), span, None), cache, [GatheredBackend()])
    key, value = random(1, KV_HEADS, DIM), random(1, KV_HEADS, VALUE_DIM)
    out = batch.attend(0, random(1, HEADS, DIM), key, value, LayerOptions(0.25))
    # One key is all there is to see, so its value is the result, for each of its query heads.
    torch.testing.assert_close(out, value.repeat_interleave(HEADS // KV_HEADS, dim=1))


def test_what_a_span_keeps_is_made_once() -> None:
    span = make_span(np.array([3]), np.array([2]))
    made = []

    def make() -> int:
        made.append(0)
        return len(made)

    assert [span.once("a", make), span.once("a", make), span.once(("a", 2), make)] == [1, 1, 2]
    assert span.lengths is span.lengths


def test_a_captured_step_has_no_lengths_on_the_host() -> None:
    whole = make_span(np.array([3]), np.array([1]))
    span = Span(whole.tables, whole.starts, whole.ends, whole.firsts, 1, longest_context=90)
    with pytest.raises(RuntimeError, match="known on the device only"):
        GatheredBackend().decode(
            random(1, HEADS, DIM),
            random(91, 8, 2, DIM),
            random(91, 8, 2, DIM),
            span,
            OPTIONS["plain"],
        )
