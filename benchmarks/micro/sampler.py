"""What sampling costs: `python -m benchmarks.micro.sampler`.

One step of 64 requests over a vocabulary of 151,936 tokens, for several sets of options, beside a
plain vectorised implementation where one exists: argmax, one sort for top-k and top-p, one running
sum for the draw. Rounds alternate between the two, so that both meet the same machine; the table
shows the best round of each. "peaked": probability falls with rank as in a trained model; "flat":
random logits, where a filter keeps thousands of tokens.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from millstream.core.plan import Chunk
from millstream.core.request import Request, SamplingParams
from millstream.model.sampling.logprobs import sampled_logprobs
from millstream.model.sampling.numbers import uniform
from millstream.model.sampling.sampler import Sampler

VOCAB = 151_936
HISTORY = 2_000

CASES = {
    "everything off (greedy)": SamplingParams(temperature=0.0),
    "temperature": SamplingParams(temperature=0.8),
    "temperature, top-p 0.9": SamplingParams(temperature=0.8, top_p=0.9),
    "top-k 50, top-p 0.95": SamplingParams(top_k=50, top_p=0.95),
    "min-p 0.05": SamplingParams(min_p=0.05),
    "typical-p 0.9": SamplingParams(typical_p=0.9),
    "three penalties, greedy": SamplingParams(
        temperature=0.0, repetition_penalty=1.1, frequency_penalty=0.3, presence_penalty=0.2
    ),
    "everything on": SamplingParams(
        temperature=0.8,
        top_k=50,
        top_p=0.95,
        min_p=0.01,
        typical_p=0.95,
        repetition_penalty=1.1,
        frequency_penalty=0.3,
        presence_penalty=0.2,
        logit_bias=((5, 1.0), (6, -1.0)),
        bad_words=((7,), (8, 9)),
        min_tokens=10**6,
    ),
    "greedy, logprobs 20": SamplingParams(temperature=0.0, logprobs=20),
}
PLAIN = ("everything off (greedy)", "temperature", "temperature, top-p 0.9", "top-k 50, top-p 0.95")


def peaked(rows: int) -> Tensor:
    """Probability of rank r in proportion to r ** -1.5, shuffled."""
    order = torch.stack([torch.randperm(VOCAB) for _ in range(rows)])
    return -1.5 * torch.log1p(order.float()) + 12


def flat(rows: int) -> Tensor:
    return torch.randn(rows, VOCAB) * 3


def chunks(params: SamplingParams, rows: int) -> list[Chunk]:
    found = []
    for index in range(rows):
        prompt = tuple(torch.randint(10, VOCAB, (HISTORY,)).tolist())
        request = Request(
            id=index, prompt=prompt, sampling=params, max_tokens=1000, stop_token_ids=(1, 2)
        )
        history = [*prompt, *prompt[: HISTORY // 10]]
        found.append(Chunk(request, history[-1:], len(history) - 1, [], history, is_last=True))
    return found


def plain(logits: Tensor, params: SamplingParams) -> list[int]:
    """The usual vectorised sampler: no more than torch operations on the whole batch."""
    best, tokens = logits.max(dim=-1)
    if not params.is_greedy:
        logits = logits.float() / params.temperature
        if params.top_k or params.top_p < 1:
            ordered = logits.sort(dim=-1, descending=True).values
            if params.top_k:
                ordered[:, params.top_k :] = float("-inf")
            shares = ordered.softmax(dim=-1)
            num_kept = (shares.cumsum(dim=-1) - shares < params.top_p).sum(dim=-1, keepdim=True)
            logits = logits.masked_fill(logits < ordered.gather(1, num_kept - 1), float("-inf"))
        sums = logits.softmax(dim=-1).double().cumsum(dim=-1)
        numbers = torch.tensor([uniform(0, index) for index in range(len(logits))])
        points = numbers.double().unsqueeze(1) * sums[:, -1:]
        tokens = torch.searchsorted(sums, points, right=True).squeeze(1)
    found: list[int] = tokens.masked_fill(~best.isfinite(), -1).tolist()
    return found


def best_ms(actions: list[Callable[[], object]], rounds: int) -> list[float]:
    best = [float("inf")] * len(actions)
    for action in actions:
        action()
    for _ in range(rounds):
        for index, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[index] = min(best[index], (time.perf_counter() - start) * 1e3)
    return best


def measure(name: str, logits: Tensor, *, rounds: int) -> list[float]:
    """Best milliseconds of this sampler, then of the plain one where it applies."""
    params, sampler = CASES[name], Sampler()
    batch = chunks(params, len(logits))

    def step() -> None:
        tokens = sampler.sample(logits, batch)
        sampled_logprobs(logits, batch, tokens)
        for chunk, token in zip(batch, tokens, strict=True):
            chunk.history.append(token)

    actions: list[Callable[[], object]] = [step]
    if name in PLAIN:
        actions.append(lambda: plain(logits, params))
    return best_ms(actions, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--shapes", nargs="+", choices=["peaked", "flat"], default=["peaked"])
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{options.rows} rows, vocabulary {VOCAB}, {options.dtype}; milliseconds per step")
    print(f"{'options':26} {'logits':7} {'threads':>7} {'millstream':>11} {'plain':>8}")
    with torch.inference_mode():
        for shape in options.shapes:
            logits = {"peaked": peaked, "flat": flat}[shape](options.rows)
            logits = logits.to(getattr(torch, options.dtype))
            for threads in options.threads:
                torch.set_num_threads(threads)
                for name in CASES:
                    ours, *others = measure(name, logits, rounds=options.rounds)
                    other = f"{others[0]:8.1f}" if others else " " * 8
                    print(f"{name:26} {shape:7} {threads:7} {ours:11.1f} {other}", flush=True)


if __name__ == "__main__":
    main()
