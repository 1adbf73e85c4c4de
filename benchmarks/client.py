"""The load client: plays a workload against any OpenAI-compatible server and measures it.

Rules: every server gets the same bodies (temperature 0, streamed, usage asked for) but for the
model's name and fields that a server needs and others would refuse. A request that fails is counted
with its reason, never retried. A conversation that fails loses its later turns: they failed, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from transformers import AutoTokenizer

from benchmarks.measures import Record, Slo, StreamError, Summary, Transcript, summarise
from benchmarks.report import print_table
from benchmarks.wire import Endpoint, WireError, post_events
from benchmarks.workloads import WORKLOADS, Conversation, Workload, plan
from benchmarks.writer import Tokenizer

ROUTE = "/chat/completions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A server to ask. extra: fields added to every body. timeout: seconds for a whole request."""

    endpoint: Endpoint
    model: str
    extra: dict[str, Any] = field(default_factory=dict)
    api_key: str | None = None
    timeout: float = 600.0

    def body(self, messages: list[dict[str, str]], max_tokens: int) -> bytes:
        content = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }
        return json.dumps(content).encode()


async def ask(
    target: Target, messages: list[dict[str, str]], conversation: Conversation
) -> tuple[Record, str]:
    """One request, to its end, its failure or its cancellation. Returns the answer's text too."""
    body = target.body(messages, conversation.max_tokens)
    limit, transcript = conversation.cancel_after, Transcript()
    started = time.perf_counter()
    error, is_cancelled = "", False
    events = post_events(
        target.endpoint, ROUTE, body, api_key=target.api_key, timeout=target.timeout
    )
    try:
        async with aclosing(events):
            async for now, payloads in events:
                for payload in payloads:
                    transcript.feed(now, payload)
                is_cancelled = limit is not None and len(transcript.pieces) >= limit
                if is_cancelled or transcript.is_done:
                    break
        if not is_cancelled and transcript.finish_reason is None and not transcript.is_done:
            error = "the stream ended without a finish_reason"
    except (WireError, StreamError) as failure:
        error = str(failure)
    record = _record(
        transcript,
        conversation.max_tokens,
        started=started,
        error=error,
        is_cancelled=is_cancelled,
    )
    return record, transcript.text


def _record(
    transcript: Transcript, asked: int, *, started: float, error: str, is_cancelled: bool
) -> Record:
    now, usage = time.perf_counter(), transcript.usage
    return Record(
        outcome="failed" if error else "cancelled" if is_cancelled else "completed",
        started=started,
        ended=transcript.finished_at or now,
        times=tuple(transcript.times),
        tokens=transcript.num_tokens,
        asked=asked,
        prompt_tokens=usage.prompt_tokens if usage else None,
        error=error,
    )


async def converse(target: Target, conversation: Conversation) -> list[Record]:
    """All turns of a conversation, each with the answers so far as history."""
    messages: list[dict[str, str]] = []
    records: list[Record] = []
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn})
        record, text = await ask(target, messages, conversation)
        records.append(record)
        if record.outcome != "completed":
            break
        messages.append({"role": "assistant", "content": text})
    now = time.perf_counter()
    lost = Record(
        outcome="failed", started=now, ended=now, error="an earlier turn did not complete"
    )
    return records + [lost] * (len(conversation.turns) - len(records))


async def play(
    target: Target, workload: Workload, conversations: Sequence[Conversation], slo: Slo
) -> Summary:
    """A whole workload: at most `concurrency` conversations at a time, or as they arrive."""
    records: list[Record] = []
    waiting = deque(conversations)

    async def worker() -> None:
        while waiting:
            records.extend(await converse(target, waiting.popleft()))

    async def arrive(conversation: Conversation) -> None:
        await asyncio.sleep(conversation.arrival)
        records.extend(await converse(target, conversation))

    cpu, start = time.process_time(), time.perf_counter()
    if workload.concurrency is None:
        await asyncio.gather(*map(arrive, conversations))
    else:
        await asyncio.gather(*(worker() for _ in range(workload.concurrency)))
    return summarise(
        records,
        duration=time.perf_counter() - start,
        client_cpu_seconds=time.process_time() - cpu,
        slo=slo,
    )


def add_slo(parser: argparse.ArgumentParser) -> None:
    default = Slo()
    parser.add_argument("--slo-ttft-ms", type=float, default=default.ttft_ms, metavar="MS")
    parser.add_argument("--slo-tpot-ms", type=float, default=default.tpot_ms, metavar="MS")


def load_tokenizer(folder: str | Path) -> Tokenizer:
    automatic: Any = AutoTokenizer
    tokenizer: Tokenizer = automatic.from_pretrained(folder)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.client",
        description="Measure a server that is already running.",
    )
    parser.add_argument("base_url", help="such as http://127.0.0.1:8080")
    parser.add_argument(
        "--tokenizer", required=True, help="folder or name of the model's tokenizer"
    )
    parser.add_argument("--model", default="bench", help="the name that the server knows it by")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["c4"])
    parser.add_argument("--seed", default="0", help="other seeds give other prompts")
    parser.add_argument("--extra", type=json.loads, default={}, help="JSON added to each body")
    parser.add_argument("--api-key")
    parser.add_argument("--json", type=Path, help="write the figures here")
    add_slo(parser)
    arguments = parser.parse_args()
    target = Target(
        endpoint=Endpoint.parse(arguments.base_url),
        model=arguments.model,
        extra=arguments.extra,
        api_key=arguments.api_key,
    )
    tokenizer = load_tokenizer(arguments.tokenizer)
    slo = Slo(arguments.slo_ttft_ms, arguments.slo_tpot_ms)
    results = {}
    for name in arguments.workloads:
        conversations = plan(WORKLOADS[name], tokenizer, seed=f"{name}-{arguments.seed}")
        results[name] = uvloop.run(play(target, WORKLOADS[name], conversations, slo))
    print_table([(arguments.base_url, name, [summary]) for name, summary in results.items()])
    if arguments.json:
        content = {name: asdict(summary) for name, summary in results.items()}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
