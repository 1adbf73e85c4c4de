"""A request that forbids every token ends alone, and says that the model is not to blame."""

from __future__ import annotations

from pathlib import Path

from millstream.core.blocks import BlockPool
from millstream.core.request import Request, SamplingParams
from millstream.core.scheduler import Scheduler
from millstream.runtime.loop import EngineLoop
from millstream.runtime.messages import Add
from tests.model.architectures import greedy, make_model
from tests.model.test_architectures import greedy_request, make_runner, random_prompts
from tests.model.test_runner import ScriptedChannel


def test_impossible_request_fails_alone(tmp_path: Path) -> None:
    model = make_model("llama", tmp_path)
    prompts = random_prompts(3, seed=11)
    healthy = [greedy_request(index, prompt, 6) for index, prompt in enumerate(prompts)]
    impossible = Request(
        id=50,
        prompt=(5, 6, 7),
        sampling=SamplingParams(allowed_token_ids=(9,), min_tokens=1),
        max_tokens=6,
        stop_token_ids=(9,),
    )
    channel = ScriptedChannel([Add(impossible), *map(Add, healthy)], [])
    scheduler = Scheduler(
        pool=BlockPool(num_blocks=24, block_size=8), max_running=4, max_step_tokens=64
    )
    runner = make_runner(tmp_path, block_size=8)
    EngineLoop(scheduler=scheduler, runner=runner, channel=channel).run()
    assert {f.request_id: f.code for f in channel.failures} == {50: "no_token_allowed"}
    assert channel.answers == {r.id: greedy(model, r.prompt, 6) for r in healthy}
    scheduler.check()
    assert scheduler.statistics().num_blocks_used == 0
