"""The Triton kernels against plain torch, by Triton's interpreter: no device needed."""

from __future__ import annotations

import importlib.util

import pytest

from tests.model.cuda.triton_scripts import run_script

# The interpreter is chosen when Triton is imported, and its kernels then run nowhere else.
_SCRIPT = """
import itertools
import torch
from millstream.model import reference
from millstream.model.attention import LayerOptions
from millstream.model.cuda import triton_attention

generator = torch.Generator().manual_seed(0)

def random(*size):
    return torch.randn(size, generator=generator)

# The interpreter's products of bfloat16 are wrong; float16 is the 16 bit type here.
cases = [
    (torch.float32, 24, 16, 2, 3, 5),
    (torch.float16, 80, 80, 1, 1, 16),
    (torch.float32, 32, 32, 2, 2, 8),
]
extras = [{}, {"window": 20}, {"softcap": 5.0, "window": 64}, {"sinks": True}, {"chunk": 24}]
for (dtype, dim, width, kv_heads, group, page), extra in itertools.product(cases, extras):
    heads = kv_heads * group
    keys = random(21, page, kv_heads, dim).to(dtype)
    values = random(21, page, kv_heads, width).to(dtype)
    keys[20] = values[20] = float("nan")  # what is not seen must not matter
    tables = torch.stack([torch.randperm(20, generator=generator) for _ in range(3)])
    wide = torch.nn.functional.pad(tables, (0, 2), value=20).int()
    passed = {"scale": dim**-0.5, **extra}
    if "sinks" in extra:
        passed["sinks"] = random(heads)
    options = LayerOptions(**passed)
    last = 20 * page
    positions = torch.tensor([0, last // 2 + 3, last - 1])
    query = random(3, heads + 1, dim).to(dtype)[:, :heads]  # tokens lie apart
    actual = triton_attention.decode(query, keys, values, wide, positions, options)
    expected = reference.paged_attention_decode(query, keys, values, tables, positions, **passed)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    # Chunks of a captured step: 70, 3, none and 20 tokens, then 40 for nobody, and none again.
    starts, lengths = torch.tensor([0, 5, last - 20]), torch.tensor([70, 3, 20])
    filled = torch.tensor([0, 5, 0, last - 20, -64, -64])
    firsts = torch.tensor([0, 70, 73, 73, 93, 133, 133], dtype=torch.int32)
    wider = torch.full((6, 22), 20, dtype=torch.int32)
    wider[[0, 1, 3]] = wide
    query = random(133, heads, dim).to(dtype)
    actual = triton_attention.prefill(
        query, keys, values, wider, starts=filled, firsts=firsts, options=options
    )
    expected = reference.paged_attention_prefill(
        query[:93], keys, values, tables, starts, lengths, **passed
    )
    torch.testing.assert_close(actual[:93], expected, rtol=tolerance, atol=tolerance)
    assert not actual[93:].any()
    alone = triton_attention.prefill(
        query[:93], keys, values, wide, starts=starts, firsts=torch.tensor([0, 70, 73, 93]),
        options=options,
    )
    assert torch.equal(actual[:93], alone), "what fills a step up changes nothing"
    print("equal", dtype, dim, sorted(extra))
"""

# Every chunk has the tiles that it needs, and no other has them.
_TILES = """
import itertools
import torch
from millstream.model.attention import LayerOptions
from millstream.model.cuda import triton_attention

page, options = 16, LayerOptions(0.25)
many = (0,) * 127 + (2, 3, 0, 70)  # more chunks than are looked at in one go
for lengths in [many, *itertools.product([0, 1, 130], [0, 63, 64, 65])]:
    firsts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    tables = torch.arange(len(lengths), dtype=torch.int32)[:, None].expand(-1, 9).contiguous()
    values = torch.arange(len(lengths)).float()[:, None, None, None].expand(-1, page, 1, 16)
    found = triton_attention.prefill(
        torch.zeros(int(firsts[-1]), 1, 16), torch.zeros(len(lengths), page, 1, 16),
        values.contiguous(), tables, starts=torch.zeros(len(lengths), dtype=torch.int64),
        firsts=firsts, options=options,
    )
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    assert torch.equal(found[:, 0], owners.float()[:, None].expand(-1, 16)), lengths
    print("equal")
"""

_LAYERS = """
import random
import tempfile
import torch
from pathlib import Path
from millstream.model import acceleration
from millstream.model.cuda import layer_trial
from millstream.model.paging.kv_cache import LayerShape
from tests.model.architectures import make_model
from tests.model.test_architectures import greedy_request, make_runner, random_prompts
from tests.model.cuda.test_cuda import run_all
from tests.model.cuda.test_fused_layers import as_on_a_device

shapes = [LayerShape(2, 32, 32), LayerShape(1, 24, 24)]
found = layer_trial.find_layer_operations(
    shapes, sizes=[96, 1200], dtype=torch.float32, device=torch.device("cpu")
)
assert found is not None
print("equal operations")
for family in ("qwen3",):
    folder = Path(tempfile.mkdtemp())
    make_model(family, folder)
    prompts = random_prompts(2, seed=2, longest=9)
    requests = [greedy_request(i, p, 2) for i, p in enumerate(prompts, 1)]
    plain = run_all(make_runner(folder, block_size=8), requests, random.Random(0))
    with as_on_a_device(found) as stacks:
        fused = make_runner(folder, block_size=8)
    assert stacks
    assert run_all(fused, requests, random.Random(0)) == plain
    print("equal", family)
"""
# What a device would compile is compiled for one that need not be here.
_COMPILATION = """
import inspect
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from millstream.model.cuda import triton_kernels, triton_layer_kernels

target = GPUTarget("cuda", 90, 32)
TYPES = {"eps": "fp32", "q_eps": "fp32", "k_eps": "fp32", "scale": "fp32", "softcap": "fp32",
         "slots": "*i64", "positions": "*i64", "starts": "*i64", "firsts": "*i32", "tables": "*i32",
         "parts": "*fp32", "bests": "*fp32", "totals": "*fp32", "num_chunks": "i32"}

def compiled(kernel, **constants):
    names = list(inspect.signature(kernel.fn).parameters)
    def type_of(name):
        if name in constants:
            return "constexpr"
        return "i32" if name.endswith("_stride") else TYPES.get(name, "*bf16")
    source = ASTSource(
        fn=kernel,
        signature={name: type_of(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    assert triton.compile(source, target=target).asm["cubin"]
    print("compiled", kernel.fn.__name__)

sizes = dict(DIM=128, DIM_PAD=128, WIDTH=128, WIDTH_PAD=128, TILE=128)
seen = dict(WINDOW=0, CHUNK=0, SOFTCAP=False, PAGE=16, KV_HEADS=8)
compiled(triton_kernels.decode_parts, GROUP=4, GROUP_PAD=16, SPLITS=8, OVERLAPS=False, **sizes,
         **seen)
compiled(triton_kernels.join_parts, HEADS=32, SINKS=True, WIDTH=128, WIDTH_PAD=128, SPLITS=8,
         OVERLAPS=False)
compiled(triton_kernels.prefill_tile, SINKS=False, HEADS=32, ROWS=64, **sizes, **seen)
compiled(triton_layer_kernels.norm_row, SIZE=4096, PAD=4096, OFFSET=False, ADD=True,
         OVERLAPS=False)
compiled(triton_layer_kernels.gate_tile, SIZE=14336, TILE=1024, GELU=False, OVERLAPS=False)
compiled(triton_layer_kernels.place_head, HEADS=32, KV_HEADS=8, DIM=128, PAD=128, TURNING=128,
         Q_NORM=True, K_NORM=True, Q_OFFSET=False, K_OFFSET=False, OVERLAPS=False)
"""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def test_attention_equals_plain_torch() -> None:
    assert run_script(_SCRIPT, interpreted=True).count("equal") == 15


def test_every_row_of_every_chunk_has_a_program() -> None:
    assert run_script(_TILES, interpreted=True).count("equal") == 13


def test_layers_equal_plain_torch() -> None:
    assert run_script(_LAYERS, interpreted=True).count("equal") == 2


def test_kernels_are_compiled_for_a_device() -> None:
    assert run_script(_COMPILATION, interpreted=False).count("compiled") == 6
