"""What the engine spends around the model: scheduler, messages; per sequence and step.

Run: python -m benchmarks.micro.scheduler

Prints microseconds per running sequence per decode step, for several batch sizes and for short and
long answers: the cost must not grow with what was generated. "plan + commit" is the scheduler;
"messages" is encoding a step's events in the engine and decoding them in the HTTP process.
"""

from __future__ import annotations

import statistics
import time

from millstream.core.blocks import BlockPool
from millstream.core.plan import StepOutput
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.runtime.messages import Step, decode_from_engine, encode

BATCHES = (1, 16, 64, 256)
GENERATED = (16, 4096)
STEPS = 200


def decoding(batch: int, generated: int) -> tuple[Scheduler, StepOutput]:
    """A scheduler whose sequences have all generated so many tokens, and the next output."""
    per_request = (128 + generated + 2 * STEPS) // 16 + 2
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=batch * (per_request + 1), block_size=16),
        max_running=batch,
        max_step_tokens=max(512, batch),
    )
    for index in range(batch):
        prompt = tuple((index * 7 + position) % 1000 for position in range(128))
        request = Request(
            id=index + 1, prompt=prompt, sampling=SamplingParams(), max_tokens=generated + 9999
        )
        scheduler.add(request)
    output = StepOutput([5] * batch)
    while True:
        plan = scheduler.plan()
        assert plan is not None
        scheduler.commit(plan, StepOutput([5] * plan.num_sampled))
        is_full = plan.num_tokens == len(plan.chunks) == batch
        if is_full and min(chunk.num_generated for chunk in plan.chunks) >= generated:
            return scheduler, output


def measure(batch: int, generated: int) -> tuple[float, float]:
    """Median microseconds per sequence and step: scheduler, messages."""
    scheduler, output = decoding(batch, generated)
    engine: list[float] = []
    messages: list[float] = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        plan = scheduler.plan()
        assert plan is not None
        events = scheduler.commit(plan, output)
        middle = time.perf_counter()
        decode_from_engine(encode(Step(events, [], scheduler.statistics())))
        messages.append(time.perf_counter() - middle)
        engine.append(middle - begin)
    scale = 1e6 / batch
    return statistics.median(engine) * scale, statistics.median(messages) * scale


def main() -> None:
    print("running  generated  plan + commit  messages   (us per sequence per step)")
    for batch in BATCHES:
        for generated in GENERATED:
            engine, messages = measure(batch, generated)
            print(f"{batch:7}  {generated:9}  {engine:13.2f}  {messages:8.2f}")


if __name__ == "__main__":
    main()
