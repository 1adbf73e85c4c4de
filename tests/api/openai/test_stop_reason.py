"""What ended an answer, as vLLM reports it: the stop string, or the stop token that was named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.talk import Talk, byte_tokenizer, marked_tokenizer, talk

__all__ = ["byte_tokenizer", "marked_tokenizer", "talk"]

CALLS = [
    f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>'
    for name in ("now", "get_weather")
]
STOP = 'get_weather", "arguments": {'


async def ending(talk: Talk, **fields: Any) -> tuple[str, str | int | None]:
    """Finish reason and stop reason, which are the same streamed and whole."""
    (whole,) = (await talk.body(**fields))["choices"]
    *choices, last = [event["choices"][0] for event in await talk.events(**fields)]
    assert all("stop_reason" not in choice for choice in choices)
    assert (last["finish_reason"], last["stop_reason"]) == (
        whole["finish_reason"],
        whole["stop_reason"],
    )
    return whole["finish_reason"], whole["stop_reason"]


@pytest.mark.parametrize("tools", [True, False])
async def test_what_ended_an_answer(tools: bool, talk: Talk) -> None:
    talk.speaker.say("hello world")
    fields: dict[str, Any] = {} if tools else {"tools": None}
    assert await ending(talk, **fields) == ("stop", None)
    assert await ending(talk, stop=["x", "o w", "wo"], **fields) == ("stop", "o w")
    assert await ending(talk, stop="world", max_tokens=1000, **fields) == ("stop", "world")
    assert await ending(talk, stop=["x"], **fields) == ("stop", None)
    assert await ending(talk, max_tokens=2, **fields) == ("length", None)


async def test_the_model_s_own_token_is_a_reason_only_if_it_was_named(talk: Talk) -> None:
    talk.speaker.say("hello world")
    end, comma = talk.tokenizer.token_to_id("<end>"), talk.tokenizer.encode(",").ids[0]
    assert await ending(talk, stop_token_ids=[comma]) == ("stop", None)
    assert await ending(talk, stop_token_ids=[comma, end]) == ("stop", end)


@pytest.mark.parametrize("include", [True, False])
async def test_a_stop_token(include: bool, talk: Talk) -> None:
    talk.speaker.say("hello, world")
    comma = talk.tokenizer.encode(",").ids[0]
    fields = {"stop_token_ids": [comma], "include_stop_str_in_output": include}
    assert await ending(talk, **fields) == ("stop", comma)
    # The last token that the length allows is no stop token, though one was named.
    assert await ending(talk, stop_token_ids=[comma], max_tokens=1) == ("length", None)


async def test_the_first_call_ends_by_itself(talk: Talk) -> None:
    talk.speaker.say("".join(CALLS))
    # Shown with the beginning of the second call, which ends the answer before it.
    fields = {"stop": STOP, "include_stop_str_in_output": True}
    assert await ending(talk, **fields) == ("tool_calls", STOP)
    assert await ending(talk, parallel_tool_calls=False, **fields) == ("tool_calls", None)
