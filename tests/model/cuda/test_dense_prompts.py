"""Prompts that a CUDA device attends to densely: what is gathered and when, by plain torch."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from millstream.model import build, reference
from millstream.model.attention import LayerOptions
from millstream.model.cuda import dense_trial, warm_up
from millstream.model.cuda.backend_trial import BackendTrial
from millstream.model.cuda.backends import TritonBackend
from millstream.model.cuda.capture import capture_decodes
from millstream.model.cuda.dense_prompts import DensePromptBackend, GatheredKeys, PromptLimits
from millstream.model.cuda.dense_trial import with_dense_prompts
from millstream.model.cuda.selection import find_backends
from millstream.model.cuda.staging import Staging
from millstream.model.paging.kv_cache import LayerShape
from millstream.model.paging.step import HostSpan, Span
from millstream.settings import Settings
from tests.model.architectures import make_model
from tests.model.cuda.plain_prompts import attend_to_prompts
from tests.model.cuda.test_cuda import CPU, EagerRecording, run_all
from tests.model.test_architectures import greedy_request, make_runner, random_prompts
from tests.model.test_schedules import BLOCK_SIZE

ALWAYS = PromptLimits(fresh=1, continued=1, most_keys=10_000)
PLAIN = LayerOptions(0.2)


class Varlen:
    """torch's function by the words of its documentation. lengths: of queries and keys asked."""

    def __init__(self) -> None:
        self.lengths: list[list[tuple[int, int]]] = []
        self.error = 0.0

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
    ) -> Tensor:
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        ends = cu_seq_q.tolist(), cu_seq_k.tolist()
        assert [len(query), len(key)] == [end[-1] for end in ends]
        pairs = [tuple(np.diff(end).tolist()) for end in ends]
        self.lengths.append(list(zip(*pairs, strict=True)))
        assert max_q == max(pairs[0])
        assert max_k >= max(pairs[1])
        left, right = window_size
        assert right == 0
        out = []
        for i, (num_rows, num_keys) in enumerate(self.lengths[-1]):
            # The last row sees the last key.
            places = torch.arange(num_keys - num_rows, num_keys)[:, None]
            numbers = torch.arange(num_keys)[None]
            seen = numbers <= places
            if left >= 0:
                seen &= numbers >= places - left
            rows = query[ends[0][i] : ends[0][i + 1]].transpose(0, 1)
            keys, values = (
                tensor[ends[1][i] : ends[1][i + 1]].transpose(0, 1) for tensor in (key, value)
            )
            attended = F.scaled_dot_product_attention(
                rows, keys, values, seen, scale=scale, enable_gqa=True
            )
            out.append(attended.transpose(0, 1))
        return torch.cat(out) + self.error


def plain_kernels() -> SimpleNamespace:
    """The module of our kernels, in plain torch. prompts: how often it was asked for those."""

    def passed(options: LayerOptions) -> dict[str, Any]:
        names = ("scale", "window", "softcap", "sinks", "chunk")
        return {name: getattr(options, name) for name in names}

    def decode(
        q: Tensor, k: Tensor, v: Tensor, tables: Tensor, at: Tensor, o: LayerOptions, *,
        overlaps: bool,
    ) -> Any:  # fmt: skip
        return reference.paged_attention_decode(q, k, v, tables, at, **passed(o))

    def prefill(
        q: Tensor, k: Tensor, v: Tensor, tables: Tensor, *, starts: Tensor, firsts: Tensor,
        options: LayerOptions,
    ) -> Any:  # fmt: skip
        kernels.prompts += 1
        return attend_to_prompts(q, k, v, tables, starts=starts, firsts=firsts, options=options)

    kernels = SimpleNamespace(
        decode=decode, prefill=prefill, num_splits=lambda programs: 1, prompts=0
    )
    return kernels


def span_of(starts: list[int], lengths: list[int], *, width: int = 4) -> Span:
    """Tables of different blocks, descending."""
    tables = np.arange(len(starts) * width, dtype=np.int32).reshape(len(starts), width)[:, ::-1]
    host = HostSpan.of_chunks(np.ascontiguousarray(tables), np.array(starts), np.array(lengths))
    return host.put(torch.from_numpy)


def test_keys_are_found_in_order() -> None:
    gathered = GatheredKeys.of(span_of([0, 3], [2, 4], width=2), 4)
    assert gathered.firsts.tolist() == [0, 2, 9]
    # The first sequence begins in block 1, the second in block 3 and goes on in block 2.
    assert gathered.slots.tolist() == [4, 5, *range(12, 16), *range(8, 11)]


def test_dense_prompts_are_what_plain_torch_computes() -> None:
    kernels, varlen = plain_kernels(), Varlen()
    backend = DensePromptBackend(kernels, varlen, limits=ALWAYS)
    for shape in (LayerShape(2, 16, 16), LayerShape(1, 24, 8)):
        trial = BackendTrial(shape, num_heads=4, block_size=16, dtype=torch.float32, device=CPU)
        trial.require_right(backend)
    assert varlen.lengths == [[(3, 10), (80, 330)]] * 4, "with and without a window"
    # Soft caps, sinks and chunks are left to our kernels, and so are captured steps.
    assert kernels.prompts == 2 * (3 + 5)


@pytest.mark.parametrize(
    ("starts", "lengths", "is_dense"),
    [
        ([0, 0], [20, 11], False),
        ([0, 0], [20, 12], True),
        ([0, 8], [20, 12], False),
        ([8, 8], [20, 20], True),
        ([40, 40], [20, 20], False),
    ],
)
def test_limits_say_which_prompts_are_dense(
    starts: list[int], lengths: list[int], *, is_dense: bool
) -> None:
    limits = PromptLimits(fresh=32, continued=40, most_keys=100)
    backend = DensePromptBackend(plain_kernels(), Varlen(), limits=limits)
    span = span_of(starts, lengths)
    assert backend.is_dense(span, PLAIN) == is_dense
    assert not backend.is_dense(span, LayerOptions(0.2, softcap=3.0))


def test_the_host_does_not_wait_for_what_is_gathered() -> None:
    """Tensors without values are enough: nothing asks the device for a number, nor for a size."""
    backend = DensePromptBackend(plain_kernels(), lambda query, *_, **__: query, limits=ALWAYS)
    keys, query = torch.zeros(8, 16, 2, 4, device="meta"), torch.zeros(32, 4, 4, device="meta")
    host = span_of([0, 8], [20, 12]).on_host
    span = host.put(lambda array: torch.from_numpy(array).to("meta"))
    assert backend.is_dense(span, PLAIN)
    assert backend.prefill(query, keys, keys, span, PLAIN) is query


@pytest.fixture
def trials() -> list[BackendTrial]:
    shapes = (LayerShape(2, 8, 8), LayerShape(1, 16, 16))
    return [
        BackendTrial(shape, num_heads=2, block_size=16, dtype=torch.float32, device=CPU)
        for shape in shapes
    ]


class Clock:
    """Gives the seconds of ours and of the dense way: those calls that ask `varlen`."""

    def __init__(self, varlen: Varlen, gains: Callable[[int, int], float]) -> None:
        """gains: how many times as fast the dense way is for tokens and keys."""
        self._varlen, self._gains = varlen, gains

    def __call__(self, compute: Callable[[], object]) -> float:
        before = len(self._varlen.lengths)
        compute()
        if len(self._varlen.lengths) == before:
            return 1.0
        return 1 / self._gains(*self._varlen.lengths[-1][0])


def limits_by(
    trials: list[BackendTrial], gains: Callable[[int, int], float], *, most_keys: int = 8192
) -> PromptLimits | None:
    varlen, ours = Varlen(), TritonBackend(plain_kernels())
    found = with_dense_prompts(
        ours,
        trials,
        most_keys=most_keys,
        find_varlen=lambda: varlen,
        seconds_of=Clock(varlen, gains),
    )
    return found.limits if isinstance(found, DensePromptBackend) else None


def test_a_timing_says_from_where_on_prompts_are_dense(
    trials: list[BackendTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_trial, "_TOKENS", (8, 16, 32, 64))
    monkeypatch.setattr(dense_trial, "_PREFIX", 64)
    grows = limits_by(trials, lambda tokens, keys: tokens / 16 if keys == tokens else 1.05)
    assert grows == PromptLimits(fresh=32, continued=None, most_keys=8192)
    always = limits_by(trials, lambda tokens, keys: 3.0, most_keys=100)
    assert always == PromptLimits(fresh=8, continued=8, most_keys=100)
    assert limits_by(trials, lambda tokens, keys: 1.05) is None, "hardly faster"
    assert limits_by(trials, lambda tokens, keys: 3.0, most_keys=7) is None, "no room to gather"


def test_a_function_that_wants_heads_together_is_not_used(
    trials: list[BackendTrial], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ours, varlen = TritonBackend(plain_kernels()), Varlen()

    def demanding(query: Tensor, *others: Any, **options: Any) -> Tensor:
        if not query.is_contiguous():
            raise RuntimeError("query must be contiguous")
        return varlen(query, *others, **options)

    found = with_dense_prompts(
        ours, trials, most_keys=300, find_varlen=lambda: demanding, seconds_of=lambda compute: 1.0
    )
    assert found is ours
    assert "query must be contiguous" in caplog.text


def test_a_function_that_is_wrong_or_missing_is_not_used(
    trials: list[BackendTrial], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ours, wrong = TritonBackend(plain_kernels()), Varlen()
    wrong.error = 1e-3

    def refuse() -> Callable[..., Tensor]:
        raise NotImplementedError("this torch's varlen_attn has no scale")

    for find in (lambda: wrong, refuse):
        options = {"most_keys": 8192, "seconds_of": lambda compute: 1.0}
        assert with_dense_prompts(ours, trials, find_varlen=find, **options) is ours
    assert "prefill is wrong by" in caplog.text
    assert "varlen_attn has no scale" in caplog.text


def test_torch_has_the_function_and_the_cpu_does_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ours = TritonBackend(plain_kernels())
    found = find_backends(
        [LayerShape(2, 16, 16)],
        num_heads=lambda shape: 4,
        block_size=16,
        dtype=torch.bfloat16,
        device=CPU,
        most_dense_keys=4096,
        candidates={"triton": lambda: ours},
    )
    assert found == [ours]
    assert "prompts are not attended densely: NotImplementedError" in caplog.text


@pytest.mark.parametrize(("family", "leaves_some"), [("gemma3_text", False), ("gemma2", True)])
def test_answers_are_the_same(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, leaves_some: bool
) -> None:
    """Whole prompts, chunks, prefix hits, beside decode rows; windows; soft caps, left to ours."""
    make_model(family, tmp_path)
    prompts = random_prompts(6, seed=2, longest=60)
    prompts += [(*prompts[0][:-1], 9, 8), prompts[1] + (7,)]
    requests = [greedy_request(i, p, 10) for i, p in enumerate(prompts, 1)]
    plain = run_all(make_runner(tmp_path, block_size=BLOCK_SIZE), requests, random.Random(4))
    kernels, varlen = plain_kernels(), Varlen()
    backend = DensePromptBackend(kernels, varlen, limits=ALWAYS)
    staging = Staging.for_steps(CPU, max_tokens=1024, max_rows=8, max_blocks=256)
    monkeypatch.setattr(build, "_attention", lambda *_: ([backend], staging))
    capture = partial(capture_decodes, record=EagerRecording)
    monkeypatch.setattr(warm_up, "capture_decodes", capture)
    settings = Settings(model_id=str(tmp_path), max_concurrent_requests=8, block_size=BLOCK_SIZE)
    runner = build.runner_factory(tmp_path, settings)()
    kernels.prompts, varlen.lengths = 0, []
    assert run_all(runner, requests, random.Random(4)) == plain
    assert (kernels.prompts > 0) == leaves_some
    if not leaves_some:
        asked = [pair for pairs in varlen.lengths for pair in pairs]
        assert any(rows < keys for rows, keys in asked), "chunks after a prefix"
        assert any(rows == keys for rows, keys in asked)
        assert any(len(pairs) > 1 for pairs in varlen.lengths), "several prompts in a step"
