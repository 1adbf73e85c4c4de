"""The workloads: who asks what, when, and for how long. Defined once, the same for every server.

Rules: prompts are words drawn from a seed, and their length in tokens is exact with the model's own
tokenizer, the chat template included. Another seed gives other words of the same lengths, so a
prefix cache finds nothing between rounds but what a workload shares on purpose. In `chat` the
answers in the history are the server's own; what is exact there is the first prompt, and the text
that each later turn adds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.writer import Tokenizer, Writer


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Lengths are in tokens; a tuple of lengths is drawn from, evenly.

    quick: conversations of a short run, three times the concurrency or about that.
    concurrency: conversations at a time (closed loop); None: they arrive at `rate` per second.
    shared: tokens at the start that all prompts have in common, part of `prompt`. quoted: words of
    a text in the prompt that a model which quotes repeats in its answer; each 16th, or about that,
    is another there than in the answer.
    added: tokens of text that each turn after the first adds. cancelled: share that is cut off.
    """

    name: str
    about: str
    conversations: int
    quick: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    concurrency: int | None = None
    rate: float | None = None
    shared: int = 0
    quoted: int = 0
    turns: int = 1
    added: int = 0
    cancelled: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One client's part. arrival: seconds after the start; cancel_after: pieces received."""

    turns: tuple[str, ...]
    max_tokens: int
    arrival: float = 0.0
    cancel_after: int | None = None


def _steady(concurrency: int, conversations: int, quick: int) -> Workload:
    return Workload(
        name=f"c{concurrency}",
        about=f"{concurrency} at a time, 128 tokens in, 64 out",
        conversations=conversations,
        quick=quick,
        concurrency=concurrency,
        prompt=(128,),
        answer=(64,),
    )


def _edit(concurrency: int, conversations: int, quick: int) -> Workload:
    return Workload(
        name=f"edit{concurrency}",
        about=f"{concurrency} at a time, 320 tokens in, of which 128 out repeat most",
        conversations=conversations,
        quick=quick,
        concurrency=concurrency,
        prompt=(320,),
        quoted=160,
        answer=(128,),
    )


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _steady(1, 8, 4),
        _steady(4, 24, 12),
        _steady(16, 96, 48),
        _steady(32, 160, 96),
        _edit(1, 8, 4),
        _edit(4, 24, 12),
        Workload(
            name="long",
            about="4 at a time, 1024 tokens in, 32 out",
            conversations=20,
            quick=12,
            concurrency=4,
            prompt=(1024,),
            answer=(32,),
        ),
        Workload(
            name="prefix",
            about="8 at a time, 512 shared tokens and 64 of their own in, 32 out",
            conversations=48,
            quick=24,
            concurrency=8,
            prompt=(576,),
            shared=512,
            answer=(32,),
        ),
        Workload(
            name="chat",
            about="8 conversations of 4 turns: 128 tokens in, 64 more each turn, 48 out",
            conversations=16,
            quick=8,
            concurrency=8,
            prompt=(128,),
            turns=4,
            added=64,
            answer=(48,),
        ),
        Workload(
            name="churn",
            about="2 a second (Poisson), 32 to 512 tokens in, 16 to 128 out, a third cancelled",
            conversations=60,
            quick=24,
            rate=2.0,
            prompt=(32, 64, 128, 256, 512),
            answer=(16, 32, 64, 128),
            cancelled=1 / 3,
        ),
    )
}


def plan(workload: Workload, tokenizer: Tokenizer, *, seed: str) -> list[Conversation]:
    """The conversations of a workload in order of arrival; the same seed gives the same ones.

    Raises ValueError if a length cannot be met with this tokenizer (shorter than its template).
    """
    # Intentional: one generator for words and one for the rest, so that lengths, arrivals and
    # cancellations are the same in every round and only the words differ.
    draw, writer = random.Random(workload.name), Writer(tokenizer, seed)
    number = workload.conversations
    prompts, answers = _mixed(workload.prompt, number, draw), _mixed(workload.answer, number, draw)
    cut = set(draw.sample(range(number), round(number * workload.cancelled)))
    prefix = writer.prefix(workload.shared) if workload.shared else ()
    now, conversations = 0.0, []
    for index in range(number):
        quoted = writer.quoted(workload.quoted, draw) if workload.quoted else ()
        first = writer.prompt(prompts[index], after=(*prefix, *quoted))
        added = [writer.text(workload.added) for _ in range(workload.turns - 1)]
        cancel_after = draw.randint(1, answers[index] // 2) if index in cut else None
        conversations.append(
            Conversation(
                turns=(first, *added),
                max_tokens=answers[index],
                arrival=now,
                cancel_after=cancel_after,
            )
        )
        now += draw.expovariate(workload.rate) if workload.rate else 0.0
    return conversations


def alter(
    workload: Workload, *, conversations: int | None, prompt: int | None, answer: int | None
) -> Workload:
    """The workload with some of its numbers replaced: no longer the frozen one."""
    altered = workload
    if conversations is not None:
        altered = replace(altered, conversations=conversations)
    if prompt is not None:
        shared = min(altered.shared, prompt // 2)
        altered = replace(altered, prompt=(prompt,), shared=shared)
    if answer is not None:
        altered = replace(altered, answer=(answer,))
    return altered


def _mixed(lengths: Sequence[int], number: int, draw: random.Random) -> list[int]:
    """`number` lengths, each about equally often, in random order."""
    repeated = [lengths[index % len(lengths)] for index in range(number)]
    draw.shuffle(repeated)
    return repeated
