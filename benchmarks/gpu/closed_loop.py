"""The engine alone with streams that are kept full: what a server in front of it could pass on."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import count

from benchmarks.gpu.engine import GREEDY, run
from benchmarks.gpu.streams import first_length
from millstream.core.blocks import BlockPool
from millstream.core.request import Request
from millstream.core.scheduler import Scheduler
from millstream.model.runner import ModelRunner


@dataclass(frozen=True, kw_only=True, slots=True)
class Alone:
    """period: seconds from step to step, those with prompts included."""

    tokens_per_s: float
    period: float


def run_alone(
    runner: ModelRunner, *, streams: int, prompt: int, answer: int, seconds: float
) -> Alone:
    """Answers of `answer` tokens to random prompts of `prompt`, one after the other in each of the
    streams. Measures for so many seconds, once each of them has had a token."""
    info, draw, ids = runner.info, random.Random(0), count()
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=info.num_blocks, block_size=info.block_size),
        max_running=streams,
        max_step_tokens=info.max_step_tokens,
    )

    def ask(max_tokens: int) -> None:
        words = tuple(draw.choices(range(info.vocab_size), k=prompt))
        request = Request(id=next(ids), prompt=words, sampling=GREEDY, max_tokens=max_tokens)
        scheduler.add(request)

    for number in range(streams):
        ask(first_length(number, streams, answer))
    without_token = set(range(streams))
    num_tokens = num_steps = 0
    began, taken = time.perf_counter(), 0.0
    for events in run(runner, scheduler):
        if taken:
            continue  # what is under way comes to its end
        for event in events:
            num_tokens += len(event.token_ids)
            without_token.discard(event.request_id)
            if event.finish_reason is not None:
                ask(answer)
        num_steps += 1
        now = time.perf_counter()
        if without_token:
            began, num_tokens, num_steps = now, 0, 0
        elif now - began >= seconds:
            taken = now - began
    return Alone(tokens_per_s=num_tokens / taken, period=taken / num_steps)
