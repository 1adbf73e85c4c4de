"""Grammars in children: what passes, what is refused, and that nothing else is harmed."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import EngineUnavailable, Overloaded
from millstream.text.grammars.answer_formats import GrammarChecker, GrammarError, json_grammar
from millstream.workers.grammar_checks import GrammarChecks, KeptOutcomes, PartError
from millstream.workers.grammar_process import Part


@pytest.fixture
async def checks() -> AsyncIterator[GrammarChecks]:
    checks = GrammarChecks(max_seconds=1.0, max_bytes=256 * 2**20)
    yield checks
    await checks.stop()
    assert children() == set()


def children() -> set[int]:
    """The processes that this one has started to check grammars and that live."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_ours = f"PPid:\t{os.getpid()}\n" in (folder / "status").read_text()
            if is_ours and b"grammar_child" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110, other processes set no event
            await asyncio.sleep(0.001)


def text(**keywords: Any) -> Part:
    return ("json", {"type": "string"} | keywords)


def chain(length: int) -> str:
    rules = [f"r{i}: r{i + 1}" for i in range(length)]
    return "\n".join(["start: r0", *rules, f'r{length}: "a"'])


def nested_refs(length: int) -> dict[str, Any]:
    ends: dict[str, Any] = {f"r{length}": {"type": "string"}}
    arrays = {
        f"r{i}": {"type": "array", "items": {"$ref": f"#/$defs/r{i + 1}"}} for i in range(length)
    }
    return {"$ref": "#/$defs/r0", "$defs": arrays | ends}


def patterns(*texts: str) -> Part:
    return text(allOf=[{"pattern": pattern} for pattern in texts])


SLOW = patterns(*(f".*{letter}.{{10}}" for letter in "abcdefghijklmnopqrst"))
HUNGRY = patterns(*(f"a.{{{i}}}b" for i in range(300)))
# Which limit they reach first depends on how fast the machine is.
BEYOND = r"takes more than (1 s|256 MiB of memory)$"


async def test_what_passes_is_what_the_engine_takes(checks: GrammarChecks) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    found = await checks.texts(
        [("json", schema), ("choice", ["a", "b"]), ("grammar", 'start: "x"')]
    )
    assert found[0] == json_grammar(schema)
    assert await checks.texts([("ready", grammar) for grammar in found]) == found
    for grammar in found:
        GrammarChecker().check(grammar)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (("grammar", chain(5000)), "nested too deeply"),
        (("json", nested_refs(1000)), "nested too deeply"),
        (("json", '{"const": ' + "[" * 3000 + "]" * 3000 + "}"), "nested too deeply"),
        (SLOW, BEYOND),
        (HUNGRY, BEYOND),
        (("json", {"not": {}}), "not"),
        (("grammar", "root ::= a"), "Rule 'a' not found"),
        (("regex", "\ud800"), "surrogate"),
    ],
)
async def test_what_harms_is_refused(part: Part, reason: str, checks: GrammarChecks) -> None:
    with pytest.raises(PartError, match=reason):
        await checks.texts([part])
    assert len(await checks.texts([text()])) == 1


@pytest.mark.parametrize(
    ("max_seconds", "max_bytes", "reason"),
    [(0.2, 16 * 2**30, "more than 0.2 s"), (600.0, 160 * 2**20, "more than 160 MiB of memory")],
)
async def test_each_limit_holds(max_seconds: float, max_bytes: int, reason: str) -> None:
    checks = GrammarChecks(max_seconds=max_seconds, max_bytes=max_bytes)
    with pytest.raises(PartError, match=reason):
        await checks.texts([SLOW])
    await checks.stop()


async def test_the_first_error_says_which_part_it_is(checks: GrammarChecks) -> None:
    parts = [text(), ("regex", "("), text(minLength=1), ("grammar", chain(5000)), text(maxLength=9)]
    with pytest.raises(PartError, match="unclosed") as caught:
        await checks.texts(parts)
    assert caught.value.index == 1
    with pytest.raises(PartError, match="nested") as caught:
        await checks.texts(parts[2:])
    assert caught.value.index == 1
    assert len(await checks.texts([parts[0], parts[2]])) == 2


async def test_results_and_errors_are_kept(checks: GrammarChecks) -> None:
    good, bad = text(), ("grammar", chain(5000))
    first = await checks.texts([good])
    with pytest.raises(GrammarError):
        await checks.texts([bad])
    await checks.stop()
    assert await checks.texts([good]) == first
    with pytest.raises(PartError, match="nested"):
        await checks.texts([good, bad])
    assert children() == set(), "nothing had to be asked"


async def test_a_child_is_used_again_and_kept_warm(checks: GrammarChecks) -> None:
    await checks.warm()
    before = children()
    for length in range(5):
        await checks.texts([text(minLength=length)])
    assert children() == before
    with pytest.raises(GrammarError):
        await checks.texts([("grammar", chain(5000))])
    assert len(children()) == 1
    assert children() != before


async def test_leaving_kills_the_child(checks: GrammarChecks) -> None:
    waiting = asyncio.create_task(checks.texts([SLOW]))
    await until(lambda: bool(children()))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() == set()


async def test_slow_grammars_do_not_delay_others() -> None:
    checks = GrammarChecks(max_seconds=60)
    slow = [
        asyncio.create_task(checks.texts([("json", SLOW[1] | {"minLength": length})]))
        for length in range(6)
    ]
    await until(lambda: len(children()) == 6)
    # Each of the six would take minutes.
    async with asyncio.timeout(20):
        for length in range(5):
            await checks.texts([text(maxLength=length)])
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    await checks.stop()
    assert children() == set()


async def test_slow_grammars_take_turns_and_are_bounded() -> None:
    checks = GrammarChecks(max_seconds=60)

    def hopeless(number: int) -> Part:
        return ("json", SLOW[1] | {"minLength": number})

    seven = [asyncio.create_task(checks.texts([hopeless(number)])) for number in range(7)]
    # Half a second's work is done long before that of one of the seven, which takes minutes.
    names = {f"^[a-z]+{index}$": {"type": "string"} for index in range(140)}
    async with asyncio.timeout(100):
        await checks.texts([("json", {"type": "object", "patternProperties": names})])
        seven.append(asyncio.create_task(checks.texts([hopeless(7)])))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await checks.texts([hopeless(8)])
        assert caught.value.retry_after == 10
        await checks.texts([text(maxLength=3)])
    assert not any(task.done() for task in seven)
    for task in seven:
        task.cancel()
    await asyncio.gather(*seven, return_exceptions=True)
    await checks.stop()
    assert children() == set()


async def test_a_crowd_shares_few_children(checks: GrammarChecks) -> None:
    crowd = [asyncio.create_task(checks.texts([text(minLength=n)])) for n in range(60)]
    most = 0
    while not all(task.done() for task in crowd):
        most = max(most, len(children()))
        await asyncio.sleep(0)
    assert [len(await task) for task in crowd] == [1] * 60
    # Those that end count until they are gone, which takes its time on a busy machine.
    assert 1 <= most <= 8


async def test_a_child_that_was_killed_while_idle_is_replaced(checks: GrammarChecks) -> None:
    await checks.warm()
    (child,) = children()
    os.kill(child, 9)
    await until(lambda: not children())
    assert len(await checks.texts([text()])) == 1


async def test_no_child_can_be_started(checks: GrammarChecks) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:  # what others have closed is free below the limit
                taken.append(os.open(os.devnull, os.O_RDONLY))
        await checks.warm()
        with pytest.raises(EngineUnavailable, match="at the moment"):
            await checks.texts([text()])
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(await checks.texts([text()])) == 1, "it is not kept"


def test_kept_outcomes_are_bounded() -> None:
    kept = KeptOutcomes(max_number=3, max_characters=20)
    kept.keep({"a": "1", "b": GrammarError("2"), "c": "3"})
    assert list(kept.of(["a", "b"])) == ["a", "b"]
    kept.keep({"d": "4"})
    assert list(kept.of("abcd")) == ["a", "b", "d"]
    kept.keep({"e": "x" * 18})
    assert list(kept.of("abcde")) == ["e"]
    kept.keep({"f": "x" * 100})
    assert list(kept.of("abcdef")) == []
    kept.keep({"g": "7"})
    assert kept.of("g") == {"g": "7"}
