"""Events and answers as clients parse them: with the openai SDK's own types, not ours."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tokenizers import Tokenizer

from millstream.api.openai.chat.builder import ChatBuilder
from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.usage import usage
from millstream.core.request import TokenLogprob
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import Delta, Reasoning
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary

IDENTITY = Identity(completion_id="chatcmpl-1", model='a "model"', created=17, fingerprint="f")
USAGE = usage(num_prompt=3, num_generated=2, num_reasoning=1, num_cached=1)

NASTY = [
    'quote " and \\',
    "line\nbreak\r",
    "\u2028\u2029\x85",
    "data: [DONE]\n\n",
    "日本 👍🏽",
    "\x00",
]


@pytest.fixture
def vocabulary(byte_tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(byte_tokenizer)


def make_stream(vocabulary: Vocabulary, **report: bool) -> ChatBuilder:
    report_of = Report(**report)
    return ChatBuilder(IDENTITY, report=report_of, vocabulary=vocabulary, prompt=(7, 8))


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


def score(token_id: int, *top: tuple[int, float]) -> TokenLogprob:
    return TokenLogprob(token_id, -0.5, 1, top)


@pytest.mark.parametrize("include_usage", [False, True])
def test_chunks_are_what_the_sdk_expects(include_usage: bool, vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary, usage=include_usage)
    raw = stream.chunk(0, TextDelta("hello")) + stream.chunk(0, TextDelta("!", "stop"))
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
    assert all("token_ids" not in event["choices"][0] for event in parsed[:4])
    assert all("prompt_token_ids" not in event for event in parsed)


def test_each_choice_opens_and_ends_once(vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary)
    raw = stream.chunk(1, TextDelta("b")) + stream.chunk(0, TextDelta("a", "length"))
    raw += stream.chunk(1, TextDelta("B", "stop"))
    found = [
        (choice["index"], choice["delta"].get("role"), choice["finish_reason"])
        for event in events(raw)
        for choice in event["choices"]
    ]
    assert found == [
        (1, "assistant", None),
        (1, None, None),
        (0, "assistant", None),
        (0, None, None),
        (0, None, "length"),
        (1, None, None),
        (1, None, "stop"),
    ]


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("logprobs", [False, True])
def test_text_cannot_break_the_frame(text: str, logprobs: bool, vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary, logprobs=logprobs)
    entry = TextLogprob(text, text.encode(), score(5, (5, -0.5)))
    delta = TextDelta(text, logprobs=(entry,) if logprobs else ())
    _, event = events(stream.chunk(0, delta))
    assert event["choices"][0]["delta"] == {"content": text}
    if logprobs:
        (content,) = event["choices"][0]["logprobs"]["content"]
        assert content["token"] == text
        assert bytes(content["bytes"]).decode() == text


def test_nothing_new_makes_no_event(vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary)
    assert len(events(stream.chunk(0, TextDelta("", token_ids=(5,))))) == 1  # only the opening
    assert stream.chunk(0, TextDelta("", token_ids=(5,))) == b""


def test_logprobs_are_in_the_chunk_of_their_text(vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary, logprobs=True)
    first = TextLogprob("he", b"he", score(5, (5, -0.5), (6, -math.inf)))
    raw = stream.chunk(0, TextDelta("he", logprobs=(first,)))
    # Text that is held back has no chunk, but the score of a token without text has.
    raw += stream.chunk(0, TextDelta("", logprobs=(TextLogprob("", b"\xf0", score(7)),)))
    raw += stream.chunk(0, TextDelta("", "stop"))
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in events(raw)]
    found = [chunk.choices[0].logprobs for chunk in chunks]
    assert found[0] is None
    assert found[3] is None
    assert found[1] is not None
    assert found[1].content is not None
    (entry,) = found[1].content
    assert (entry.token, entry.bytes, entry.logprob) == ("he", [104, 101], -0.5)
    assert [top.token for top in entry.top_logprobs] == ["he", vocabulary[6].text]
    assert [top.logprob for top in entry.top_logprobs] == [-0.5, -9999.0]
    assert found[2] is not None
    assert found[2].content is not None
    assert found[2].content[0].bytes == [0xF0]


def test_token_ids_and_running_usage(vocabulary: Vocabulary) -> None:
    stream = make_stream(vocabulary, token_ids=True, usage=True, running_usage=True)
    raw = stream.chunk(0, TextDelta("", token_ids=(4,)), USAGE)
    raw += stream.chunk(1, TextDelta("x", "stop", token_ids=(5, 6)), USAGE)
    parsed = events(raw)
    assert [event.get("prompt_token_ids") for event in parsed] == [[7, 8]] + [None] * 4
    assert [event["choices"][0]["token_ids"] for event in parsed] == [[], [4], [], [5, 6], []]
    assert [event["usage"]["completion_tokens"] for event in parsed] == [1, 2, 0, 2, 2]
    assert [event["usage"]["total_tokens"] for event in parsed] == [4, 5, 3, 5, 5]
    assert parsed[-1]["usage"] == USAGE


@pytest.mark.parametrize("parts", [None, (), (Reasoning("Hm"),)])
def test_running_usage_tells_of_tokens_without_text(
    parts: tuple[Delta, ...] | None, vocabulary: Vocabulary
) -> None:
    """Whoever cancels now has still been told of each token."""
    silent = TextDelta("", token_ids=(4,), parts=parts)
    last = TextDelta("", "stop", token_ids=(0,), parts=parts and ())
    told = make_stream(vocabulary, usage=True, running_usage=True, hides_reasoning=True)
    opening, event = events(told.chunk(0, silent, USAGE))
    assert opening["usage"]["completion_tokens"] == 1
    assert (event["usage"], event["choices"][0]["delta"]) == (USAGE, {"content": ""})
    (end,) = events(told.chunk(0, last, USAGE))
    assert end["choices"][0]["finish_reason"] == "stop"
    plain = make_stream(vocabulary, usage=True, hides_reasoning=True)
    assert len(events(plain.chunk(0, silent))) == 1


def test_whole_answer_is_what_the_sdk_expects(vocabulary: Vocabulary) -> None:
    choices = [WholeChoice.of([TextDelta("te"), TextDelta("xt", "length")])]
    body = ChatBuilder(IDENTITY, report=Report(), vocabulary=vocabulary).whole(choices, USAGE)
    answer = ChatCompletion.model_validate(body)
    assert answer.choices[0].message.content == "text"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs is None
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 1
    assert [body["prompt_logprobs"], body["prompt_token_ids"]] == [None, None]
    assert body["choices"][0]["token_ids"] is None


def test_whole_answer_with_everything(vocabulary: Vocabulary) -> None:
    deltas = [
        TextDelta("a", token_ids=(5,), logprobs=(TextLogprob("a", b"a", score(5)),)),
        TextDelta("", "stop", token_ids=(6,)),
    ]
    builder = ChatBuilder(
        IDENTITY,
        report=Report(logprobs=True, prompt_logprobs=True, token_ids=True),
        vocabulary=vocabulary,
        prompt=(7, 8, 9),
        prompt_scores=[
            TokenLogprob(8, -3.0, 4, ((1, -0.1), (2, -math.inf))),
            TokenLogprob(9, -0.2, 1, ((9, -0.2),)),
        ],
    )
    body = builder.whole([WholeChoice.of(deltas), WholeChoice.of(deltas)], USAGE)
    json.dumps(body, allow_nan=False)
    answer = ChatCompletion.model_validate(body)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[1].logprobs is not None
    assert answer.choices[1].logprobs.content is not None
    assert [entry.token for entry in answer.choices[1].logprobs.content] == ["a"]
    assert body["choices"][0]["token_ids"] == [5, 6]
    assert body["prompt_token_ids"] == [7, 8, 9]
    first, second, third = body["prompt_logprobs"]
    assert first is None
    assert second == {
        "8": {"logprob": -3.0, "rank": 4, "decoded_token": vocabulary[8].text},
        "1": {"logprob": -0.1, "rank": 1, "decoded_token": vocabulary[1].text},
        "2": {"logprob": -9999.0, "rank": 2, "decoded_token": vocabulary[2].text},
    }
    assert list(third) == ["9"]
