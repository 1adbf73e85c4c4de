"""Events as clients parse them: with the openai SDK's own types, not ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from millstream.api.openai.builder import ChatStream, Identity, usage, whole_answer
from millstream.text.assembler import TextDelta

IDENTITY = Identity(completion_id="chatcmpl-1", model='a "model"', created=17, fingerprint="f")
USAGE = usage(num_prompt=3, num_generated=2, num_cached=1)

NASTY = [
    'quote " and \\',
    "line\nbreak\r",
    "\u2028\u2029\x85",
    "data: [DONE]\n\n",
    "日本 👍🏽",
    "\x00",
]


def events(raw: bytes) -> list[Any]:
    """Parses a piece of a stream; every event ends with one blank line."""
    assert raw.endswith(b"\n\n")
    parsed = []
    for block in raw.decode("ascii").removesuffix("\n\n").split("\n\n"):
        assert block.startswith("data: ")
        assert "\n" not in block
        data = block.removeprefix("data: ")
        parsed.append(data if data == "[DONE]" else json.loads(data))
    return parsed


@pytest.mark.parametrize("include_usage", [False, True])
def test_chunks_are_what_the_sdk_expects(include_usage: bool) -> None:
    stream = ChatStream(IDENTITY, include_usage=include_usage)
    raw = stream.first() + stream.chunk(TextDelta("hello")) + stream.chunk(TextDelta("!", "stop"))
    *parsed, done = events(raw + stream.end(USAGE))
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in parsed]
    assert [chunk.choices[0].delta.role for chunk in chunks[:4]] == ["assistant", None, None, None]
    assert [chunk.choices[0].delta.content for chunk in chunks[:4]] == ["", "hello", "!", ""]
    assert [c.choices[0].finish_reason for c in chunks[:4]] == [None, None, None, "stop"]
    assert {(chunk.id, chunk.model, chunk.created) for chunk in chunks} == {
        ("chatcmpl-1", 'a "model"', 17)
    }
    if include_usage:
        assert [("usage" in event, event["usage"]) for event in parsed[:4]] == [(True, None)] * 4
        assert parsed[4]["choices"] == []
        assert parsed[4]["usage"] == USAGE
    else:
        assert len(parsed) == 4
        assert not any("usage" in event for event in parsed)


@pytest.mark.parametrize("text", NASTY)
def test_text_cannot_break_the_frame(text: str) -> None:
    stream = ChatStream(IDENTITY, include_usage=False)
    (event,) = events(stream.chunk(TextDelta(text)))
    assert event["choices"][0]["delta"] == {"content": text}


def test_nothing_new_makes_no_event() -> None:
    assert ChatStream(IDENTITY, include_usage=False).chunk(TextDelta("")) == b""


def test_whole_answer_is_what_the_sdk_expects() -> None:
    answer = ChatCompletion.model_validate(whole_answer(IDENTITY, "text", "length", USAGE))
    assert answer.choices[0].message.content == "text"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
