"""The Triton kernels against plain torch, by Triton's interpreter: no device needed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    starts, lengths = torch.tensor([0, 5, last - 20]), torch.tensor([70, 3, 20])
    firsts = torch.tensor([0, 70, 73, 93], dtype=torch.int32)
    query = random(93, heads, dim).to(dtype)
    actual = triton_attention.prefill(
        query, keys, values, wide, starts=starts, firsts=firsts, options=options, longest=70
    )
    expected = reference.paged_attention_prefill(
        query, keys, values, tables, starts, lengths, **passed
    )
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    print("equal", dtype, dim, sorted(extra))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_kernels_equal_plain_torch() -> None:
    server = Path(__file__).parents[3] / "server"
    paths = os.pathsep.join([str(server), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 15
