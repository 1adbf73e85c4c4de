"""A client that leaves, at any moment of its request: the next plan is without it, all is free."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from tokenizers import Tokenizer

from millstream.core.plan import Chunk, Plan, StepOutput
from tests.api.conftest import serve
from tests.fakes import alone, fake_info
from tests.runtime.conftest import GatedRunner, begin, collect, request_for, until

TOKENS = 20
OTHER = (1, 2, 3, 4, 5)


class Watched(GatedRunner):
    """Keeps its plans, each from before it is computed. others: ids that were there before."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.info = fake_info(num_blocks=num_blocks)
        self.plans: list[Plan] = []
        self.num_allowed = 0
        self.others: set[int] = set()

    def step(self, plan: Plan) -> StepOutput:
        self.plans.append(plan)
        return super().step(plan)

    def allow(self, steps: int) -> None:
        self.num_allowed += steps
        super().allow(steps)

    def of_client(self, plan: Plan) -> list[Chunk]:
        return [chunk for chunk in plan.chunks if chunk.request_id not in self.others]


Moment = Callable[[Watched, Plan], bool]


def is_queued(runner: Watched, plan: Plan) -> bool:
    return True


def is_prefilled(runner: Watched, plan: Plan) -> bool:
    return any(not chunk.is_last for chunk in runner.of_client(plan))


def has_tokens(count: int) -> Moment:
    return lambda runner, plan: any(c.num_generated == count for c in runner.of_client(plan))


def is_preempted(runner: Watched, plan: Plan) -> bool:
    """One that has said something is not among those that run."""
    begun = {c.request_id for each in runner.plans for c in runner.of_client(each)}
    return bool(begun - {chunk.request_id for chunk in plan.chunks})


# How many others are there first, the blocks of the cache, the prompt, and the moment.
MOMENTS: Mapping[str, tuple[int, int, str, Moment]] = {
    "queued": (4, 256, "!%+,", is_queued),
    "prefill": (1, 256, "!" * 150, is_prefilled),
    "first": (1, 256, "!%+,", has_tokens(1)),
    "mid": (1, 256, "!%+,", has_tokens(TOKENS // 2)),
    "last": (1, 256, "!%+,", has_tokens(TOKENS - 1)),
    "preempted": (1, 10, "!%+,", is_preempted),
}


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", MOMENTS)
async def test_leaving(name: str, stream: bool, n: int, byte_tokenizer: Tokenizer) -> None:
    num_others, num_blocks, prompt, is_moment = MOMENTS[name]
    runner = Watched(num_blocks)
    async with serve(runner, byte_tokenizer) as api:
        others = [begin(api.engine, OTHER, 25) for _ in range(num_others)]
        runner.others = {other.id for other in others}

        def is_now() -> bool:
            """Whether the moment has come; else lets the engine go on if it waits."""
            streams = list(api.engine.streams)
            if len(streams) < num_others + n or not all(each.is_started for each in streams):
                return False
            if not runner.plans or runner.num_begun == runner.num_allowed:
                return False
            if is_moment(runner, runner.plans[-1]):
                return True
            runner.allow(1)
            return False

        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "n": n}
        body |= {"stream": stream, "ignore_eos": True}
        status = await api.leave("/v1/chat/completions", body, when=is_now)
        assert status == (200 if stream else 499)
        assert api.engine.num_open == num_others
        num_plans = len(runner.plans)
        runner.allow(1000)
        for other in others:
            assert await collect(other) == alone(request_for(other, OTHER, 25))
            other.close()
        assert not any(runner.of_client(plan) for plan in runner.plans[num_plans:])
        await until(lambda: api.engine.statistics.num_blocks_used == 0)
        assert (api.engine.statistics.num_running, api.engine.statistics.num_waiting) == (0, 0)
