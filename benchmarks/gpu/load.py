"""A load on a running server: streams kept full by processes of their own, and what they saw."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from benchmarks.gpu.streams import FULL, Job, Measured
from benchmarks.measures import Spread
from benchmarks.peers import ServerProblem

_SCRIPT = str(Path(__file__).with_name("streams.py"))
_STREAMS_OF_A_PROCESS = 64
_NUM_WORDS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Prompts of `length` tokens: the first word, then `num_words` random ones of one token."""

    length: int
    first: str
    words: tuple[str, ...]
    num_words: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, length: int) -> Prompts:
        """Raises ValueError if the chat template alone is longer."""
        found = sorted(word[1:] for word in tokenizer.get_vocab() if word[0] == "\u0120" != word)
        words = random.Random(0).sample(found, k=min(_NUM_WORDS, len(found)))
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": words[0]}], tokenize=False, add_generation_prompt=True
        )
        num_words = length - len(tokenizer.encode(str(rendered), add_special_tokens=False))
        if num_words < 0:
            raise ValueError(f"a prompt has at least {length - num_words} tokens")
        return cls(length=length, first=words[0], words=tuple(words), num_words=num_words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What the clients of one load saw. answers: those that ended meanwhile. client_cpu: cores that
    the busiest of their processes kept busy."""

    tokens_per_s: float
    answers: int
    ttft: Spread
    itl: Spread
    client_cpu: float

    @property
    def shown(self) -> str:
        return (
            f"TTFT {_shown(self.ttft)}, ITL {_shown(self.itl)} ms (p50 / p99); {self.answers} "
            f"answers, clients' cores {self.client_cpu:.0%} busy at most"
        )


def _shown(spread: Spread) -> str:
    return f"{spread.p50:.2f} / {spread.p99:.2f}"


def play(port: int, prompts: Prompts, *, streams: int, answer: int, seconds: float) -> Served:
    """Measures for so many seconds, once all streams are full. Raises ServerProblem."""
    num_processes = -(-streams // _STREAMS_OF_A_PROCESS)
    with ExitStack() as stack:
        clients = []
        for number in range(num_processes):
            client = subprocess.Popen(
                [sys.executable, _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(client)
            stack.callback(client.kill)  # before it is waited for
            job = Job(
                port=port,
                streams=range(number, streams, num_processes),
                of=streams,
                prompt=prompts.length,
                answer=answer,
                first=prompts.first,
                words=prompts.words,
                num_words=prompts.num_words,
            )
            _tell(client, json.dumps({**asdict(job), "streams": [*job.streams]}))
            clients.append(client)
        for client in clients:
            _hear(client, until_full=True)
        for client in clients:
            _tell(client, f"{seconds}")
        return _together([Measured(**_hear(client)) for client in clients])


def _tell(client: subprocess.Popen[str], line: str) -> None:
    assert client.stdin is not None
    client.stdin.write(line + "\n")
    client.stdin.flush()


def _hear(client: subprocess.Popen[str], *, until_full: bool = False) -> dict[str, object]:
    """The next line. Raises ServerProblem if it is not the one expected."""
    assert client.stdout is not None
    line = client.stdout.readline().strip()
    if until_full and line == FULL:
        return {}
    found: dict[str, object] = json.loads(line) if line.startswith("{") else {"problem": "it died"}
    if "problem" in found:
        raise ServerProblem(f"a client: {found['problem']}")
    return found


def _together(found: list[Measured]) -> Served:
    return Served(
        tokens_per_s=sum(one.tokens / one.seconds for one in found),
        answers=sum(one.answers for one in found),
        ttft=Spread.of([seconds for one in found for seconds in one.ttft]),
        itl=Spread.of([seconds for one in found for seconds in one.itl]),
        client_cpu=max(one.cpu / one.seconds for one in found),
    )
