"""How often a step of the sampler makes the host wait for the device, counted on the CPU.

Reading a tensor on the host, in whichever way, goes through one of the functions watched here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from millstream.core.plan import UNKNOWN_TOKEN, Plan
from millstream.core.request import SamplingParams
from millstream.model import transfers
from millstream.model.paging.layout import StepBefore, fill_unknown_tokens
from millstream.model.sampling.logprobs import sampled_logprobs
from millstream.model.sampling.sampler import Sampler
from tests.model.sampling_cases import make_chunk, random_logits

VOCAB = 1500

_METHODS = ("tolist", "item", "cpu", "numpy", "to", "__bool__", "__int__", "__float__", "__index__")
# What the device has to tell the host, also where nobody asked for it: a size, or a number.
_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "_unique2")


class Reads(TorchFunctionMode):
    """Counts tensors read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _METHODS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Counts operators that read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        is_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        from_number = name.startswith("index_put") and args[2].dim() == 0
        if name in _OPERATORS or is_mask or from_number:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


PLAIN = SamplingParams(temperature=0.0)
CASES = {
    "greedy": ([PLAIN] * 3, 1),
    "temperature": ([SamplingParams(seed=1)] * 2, 1),
    "top-k and top-p": ([SamplingParams(top_k=20, top_p=0.9, seed=1)] * 2, 1),
    "penalties, biases and bans": (
        [
            SamplingParams(
                temperature=0.0,
                repetition_penalty=1.2,
                presence_penalty=0.5,
                logit_bias=((5, 1.0), (6, -1.0)),
                bad_words=((7,),),
                allowed_token_ids=tuple(range(100)),
                min_tokens=9,
            )
        ],
        1,
    ),
    "all kinds at once": (
        [
            PLAIN,
            SamplingParams(seed=1),
            SamplingParams(top_k=5, seed=2),
            SamplingParams(top_k=200, seed=3),
            SamplingParams(top_p=0.5, temperature=0.2, seed=4),
            SamplingParams(temperature=0.0, repetition_penalty=1.3),
        ],
        1,
    ),
    # Nearly all of 1,500 tokens are kept: the first look, at 128, leaves the row undecided.
    "a filter that keeps nearly all": ([SamplingParams(top_p=0.999, temperature=50.0, seed=5)], 3),
    "log probabilities": ([SamplingParams(temperature=0.0, logprobs=0)] * 2, 2),
    "top log probabilities": ([SamplingParams(temperature=0.0, logprobs=5)] * 2, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params, expected = CASES[name]
    logits = random_logits(len(params), VOCAB)
    chunks = [make_chunk(one, request_id=i) for i, one in enumerate(params)]
    downloads: list[int] = []
    lists = transfers.Download.lists

    def counting(self: transfers.Download) -> list[list[Any]]:
        if self._tensors:
            downloads.append(len(self._tensors))
        return lists(self)

    monkeypatch.setattr(transfers.Download, "lists", counting)
    sampler, reads, operators = Sampler(), Reads(), Operators()
    with reads, operators:
        drawing = sampler.launch(logits, chunks)
        assert not reads.counts, "the host waited before everything was queued"
        tokens, _ = sampler.finish(drawing)
        sampled_logprobs(logits, chunks, tokens)
    assert len(downloads) == expected
    assert reads.counts == {"tolist": sum(downloads)}
    assert not operators.counts


@pytest.mark.parametrize("name", CASES)
def test_tokens_go_from_step_to_step_without_the_host(name: str) -> None:
    params, _ = CASES[name]
    chunks = [make_chunk(one, request_id=i) for i, one in enumerate(params)]
    ahead = Plan(tuple(chunk._replace(tokens=(UNKNOWN_TOKEN,)) for chunk in chunks))
    sampler, reads, operators = Sampler(), Reads(), Operators()
    drawing = sampler.launch(random_logits(len(params), VOCAB), chunks)
    token_ids = torch.full([len(params)], UNKNOWN_TOKEN)
    with reads, operators:
        fill_unknown_tokens(
            token_ids, ahead, StepBefore([c.request_id for c in chunks], drawing.tokens)
        )
    assert not reads.counts
    assert not operators.counts
    tokens, late = sampler.finish(drawing)
    assert late == [row for row, token in enumerate(token_ids.tolist()) if token != tokens[row]]


def test_the_watchers_see_what_they_watch_for() -> None:
    reads, operators = Reads(), Operators()
    x = torch.arange(4.0)
    with reads, operators:
        _ = x.tolist()
        _ = x[0].item()
        _ = bool(x[1] > 0)
        _ = x[x > 1]
        _ = x.nonzero()
        x[torch.tensor([1])] = 3.0
    assert reads.counts == {"tolist": 1, "item": 1, "__bool__": 1}
    assert operators.counts["_local_scalar_dense"] == 2
    assert operators.counts["index"] == 1
    assert operators.counts["nonzero"] == 1
    assert operators.counts["index_put_"] == 1
