"""The older shape of log probabilities, from scores to JSON."""

from __future__ import annotations

import json
import math

import pytest
from tokenizers import Tokenizer

from millstream.api.openai.completions.builder import CompletionBuilder, CompletionReport
from millstream.api.openai.completions.text_logprobs import AnsweredPrompt, Entry, text_logprobs
from millstream.api.openai.generate.answer import Identity, WholeChoice
from millstream.core.request import TokenEvent, TokenLogprob
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.parsing.output import ParsedAnswer
from millstream.text.raw_prompt import decode_ids
from millstream.text.vocabulary import Vocabulary

IDENTITY = Identity(completion_id="cmpl-x", model="m", created=1, fingerprint="f")
A, B, C = 65, 66, 67  # ids of these letters


@pytest.fixture(scope="module")
def vocabulary(byte_tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(byte_tokenizer)


def score(token: int, logprob: float, *top: tuple[int, float]) -> TokenLogprob:
    return TokenLogprob(token, logprob, 1, top)


def test_the_token_itself_is_among_its_alternatives(vocabulary: Vocabulary) -> None:
    top = ((A, -0.5), (B, -1.0))
    entries = [
        Entry(B, "b", 0, score(B, -1.0, *top)),
        Entry(C, "c", 1, score(C, -4.0, *top)),
        Entry(C, "c", 2, score(C, -math.inf)),
    ]
    found = text_logprobs(entries, vocabulary, num_top=2)
    assert found["top_logprobs"] == [
        {"a": -0.5, "b": -1.0},
        {"a": -0.5, "b": -1.0, "c": -4.0},
        {"c": -9999.0},
    ]
    assert found["token_logprobs"] == [-1.0, -4.0, -9999.0]
    fewer = text_logprobs(entries, vocabulary, num_top=1)
    assert fewer["top_logprobs"][:2] == [{"a": -0.5, "b": -1.0}, {"a": -0.5, "c": -4.0}]


def test_of_tokens_with_one_text_the_more_probable_is_meant(vocabulary: Vocabulary) -> None:
    # Both are unknown to the tokenizer, so neither has a text.
    entries = [Entry(A, "a", 0, score(A, -3.0, (9000, -1.0), (9001, -2.0), (A, -3.0)))]
    found = text_logprobs(entries, vocabulary, num_top=3)
    assert found["top_logprobs"] == [{"": -1.0, "a": -3.0}]


def test_each_report_has_the_alternatives_it_asked_for(
    vocabulary: Vocabulary, byte_tokenizer: Tokenizer
) -> None:
    """One prompt is scored for both, with as many as the larger number."""
    prompt = decode_ids(byte_tokenizer, [A, B], vocab_size=300, max_context=100)
    assembler = TextAssembler(byte_tokenizer, prompt=[A, B], stops=())
    top = ((A, -0.5), (B, -1.0), (C, -2.0))
    assembler.push([TokenEvent(1, (), None, 0, (), (score(B, -1.0, *top),))])
    report = CompletionReport(
        logprobs=True, prompt_logprobs=True, echo=True, num_top=3, num_prompt_top=1
    )
    builder = CompletionBuilder(
        IDENTITY,
        report=report,
        vocabulary=vocabulary,
        prompts=[AnsweredPrompt(prompt, assembler)],
        per_prompt=1,
    )
    body = builder.whole([WholeChoice(ParsedAnswer(""), finish_reason="length")], {})
    (choice,) = body["choices"]
    assert choice["text"] == "ab"
    assert choice["logprobs"]["top_logprobs"] == [None, {"a": -0.5, "b": -1.0, "c": -2.0}]
    assert choice["prompt_logprobs"][0] is None
    assert set(choice["prompt_logprobs"][1]) == {str(A), str(B)}


def test_the_echo_comes_once(vocabulary: Vocabulary, byte_tokenizer: Tokenizer) -> None:
    prompt = decode_ids(byte_tokenizer, [A, B], vocab_size=300, max_context=100)
    asked = AnsweredPrompt(prompt, TextAssembler(byte_tokenizer, prompt=[A, B], stops=()))
    builder = CompletionBuilder(
        IDENTITY,
        report=CompletionReport(echo=True),
        vocabulary=vocabulary,
        prompts=[asked],
        per_prompt=1,
    )
    deltas = [TextDelta(""), TextDelta("c", None, (C,)), TextDelta("", "stop", (0,))]
    silent, first, last = (builder.chunk(0, delta) for delta in deltas)
    assert silent == b""
    assert b'"text":"abc"' in first
    assert b'"special":false' in first
    assert b'"text":""' in last
    assert b'"special":true' in last


@pytest.mark.parametrize("running_usage", [False, True])
def test_running_usage_tells_of_tokens_without_text(
    running_usage: bool, vocabulary: Vocabulary, byte_tokenizer: Tokenizer
) -> None:
    prompt = decode_ids(byte_tokenizer, [A], vocab_size=300, max_context=100)
    builder = CompletionBuilder(
        IDENTITY,
        report=CompletionReport(usage=running_usage, running_usage=running_usage),
        vocabulary=vocabulary,
        prompts=[AnsweredPrompt(prompt, TextAssembler(byte_tokenizer, prompt=[A], stops=()))],
        per_prompt=1,
    )
    usage = {"completion_tokens": 1}
    event = builder.chunk(0, TextDelta("", None, (C,)), usage)
    if running_usage:
        said = json.loads(event.removeprefix(b"data: "))
        assert (said["choices"][0]["text"], said["usage"]) == ("", usage)
    else:
        assert event == b""
