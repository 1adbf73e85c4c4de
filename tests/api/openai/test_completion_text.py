"""The text of completions is exact, streamed or whole, and so are its offsets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, processors

from millstream.core.plan import Plan, StepOutput
from millstream.core.request import TokenLogprob
from tests.api.completing import Joined, both, complete, refused, stream
from tests.api.conftest import Api, serve
from tests.api.talk import Speaker
from tests.fakes import fake_info

ANSWER = "a👍 é<end>hello 日本"


class ScoringSpeaker(Speaker):
    """Has scores for prompts too: the position of each token, below zero."""

    def step(self, plan: Plan) -> StepOutput:
        output = super().step(plan)
        scores = {
            chunk.request_id: tuple(
                TokenLogprob(chunk.history[at + 1], -float(at + 1), 1, ()) for at in chunk.scored
            )
            for chunk in plan.chunks
            if chunk.scored
        }
        return StepOutput(output.tokens, output.logprobs, scores)


@pytest.fixture
async def speaker(byte_tokenizer: Tokenizer) -> Speaker:
    info = replace(fake_info(num_blocks=256), vocab_size=byte_tokenizer.get_vocab_size())
    return ScoringSpeaker(byte_tokenizer, info)


@pytest.fixture
async def api(speaker: Speaker, byte_tokenizer: Tokenizer) -> AsyncIterator[Api]:
    async with serve(speaker, byte_tokenizer) as api:
        yield api


async def said(api: Api, speaker: Speaker, *texts: str, **fields: Any) -> list[Joined]:
    """The answers to `x`, whose own text is `texts`; the same streamed and whole."""
    speaker.say(*texts)
    # The speaker counts its answers, so both requests must ask for all of them.
    assert len(texts) == 1 or len(texts) == fields.get("n", 1)
    answers = await both(api, **({"prompt": "x", "stop_token_ids": [0], "max_tokens": 64} | fields))
    return list(answers.values())


def slices(answer: Joined) -> list[str]:
    """The text of each token, by its offset."""
    starts = answer.logprobs["text_offset"]
    ends = [*starts[1:], len(answer.text)]
    return [answer.text[start:end] for start, end in zip(starts, ends, strict=True)]


async def test_characters_come_whole(api: Api, speaker: Speaker) -> None:
    (answer,) = await said(api, speaker, "a👍 é 日本")
    assert answer.text == "a👍 é 日本"
    assert (answer.finish_reason, answer.stop_reason) == ("stop", 0)
    (cut,) = await said(api, speaker, "a👍", max_tokens=3)
    assert (cut.text, cut.finish_reason) == ("a", "length")


async def test_stop_text_does_not_leak(api: Api, speaker: Speaker) -> None:
    fields: dict[str, Any] = {"stop": ["STOP", "é!"], "logprobs": 1, "return_token_ids": True}
    (answer,) = await said(api, speaker, "aST é!b", echo=True, prompt="é! STOP", **fields)
    assert answer.text == "é! STOPaST "
    assert (answer.finish_reason, answer.stop_reason) == ("stop", "é!")
    assert "".join(slices(answer)) == answer.text
    assert "é" not in answer.logprobs["tokens"][-3:]
    (shown,) = await said(api, speaker, "aST é!b", include_stop_str_in_output=True, **fields)
    assert shown.text == "aST é!"


async def test_every_token_has_its_offset(api: Api, speaker: Speaker) -> None:
    (answer,) = await said(api, speaker, ANSWER, logprobs=0, ignore_eos=True, stop_token_ids=None)
    tokens, scores = answer.logprobs["tokens"], answer.logprobs["token_logprobs"]
    found = list(zip(tokens, slices(answer), strict=True))
    # The 31st token and all that follow are ends of the turn, which are skipped.
    first = found.index(("<end>", ""))
    assert found[:first] == [
        ("a", "a"),
        *(("\\xf0", ""), ("\\x9f", ""), ("\\x91", ""), ("👍", "👍")),
        (" ", " "),
        *(("\\xc3", ""), ("é", "é")),
    ]
    assert "".join(slices(answer)) == answer.text == "a👍 éhello 日本"
    assert len(tokens) == 64
    assert scores == [-float(place) for place in range(64)]


async def test_the_end_of_the_turn_is_scored(api: Api, speaker: Speaker) -> None:
    (answer,) = await said(api, speaker, "ab", logprobs=1)
    assert answer.logprobs == {
        "tokens": ["a", "b", "<end>"],
        "token_logprobs": [0, -1, -2],
        "top_logprobs": [{"a": 0}, {"b": -1}, {"<end>": -2}],
        "text_offset": [0, 1, 2],
    }


async def test_special_tokens_are_shown_on_request(api: Api, speaker: Speaker) -> None:
    fields: dict[str, Any] = {"ignore_eos": True, "stop_token_ids": None, "max_tokens": 3}
    (hidden,) = await said(api, speaker, "a<end>b", **fields)
    (shown,) = await said(api, speaker, "a<end>b", skip_special_tokens=False, logprobs=0, **fields)
    assert (hidden.text, shown.text) == ("ab", "a<end>b")
    assert slices(shown) == ["a", "<end>", "b"]


@pytest.mark.parametrize("prompt", ["hello é<end>👍 ", " ", "<end>"])
async def test_a_prompt_is_echoed_as_it_was_sent(
    prompt: str, api: Api, speaker: Speaker, byte_tokenizer: Tokenizer
) -> None:
    ids = byte_tokenizer.encode(prompt).ids
    for asked in (prompt, ids, [prompt], [ids]):
        (answer,) = await said(api, speaker, "a👍b", prompt=asked, echo=True, return_token_ids=True)
        assert answer.text == prompt + "a👍b"
        assert answer.prompt_token_ids == ids


async def test_an_echo_is_no_part_of_the_answer(api: Api, speaker: Speaker) -> None:
    (answer,) = await said(api, speaker, "ab", prompt="b", echo=True, stop="b", n=1)
    assert answer.text == "ba"


async def test_texts_of_several_prompts_are_not_mixed_up(api: Api, speaker: Speaker) -> None:
    speaker.say("a👍", "é", "日本", "b")
    fields: dict[str, Any] = {"prompt": ["x", "yy"], "n": 2, "echo": True, "stop_token_ids": [0]}
    body = await complete(api, **fields)
    expected = ["xa👍", "xé", "yy日本", "yyb"]
    assert [choice["text"] for choice in body["choices"]] == expected


async def test_framing_is_plain_ascii(api: Api, speaker: Speaker) -> None:
    speaker.say("a\u2028b\n👍")
    response = await api.ask(
        "POST", "/v1/completions", json={"prompt": "x", "stream": True, "stop_token_ids": [0]}
    )
    assert response.text.isascii()
    assert response.text.count("data: [DONE]\n\n") == 1
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_tokenizer_that_begins_texts(byte_tokenizer: Tokenizer) -> None:
    """The demo and the fake do not; Llama's and Gemma's do."""
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", 0)]
    )
    info = replace(fake_info(num_blocks=256), vocab_size=tokenizer.get_vocab_size())
    speaker = Speaker(byte_tokenizer, info)
    async with serve(speaker, tokenizer) as api:
        fields: dict[str, Any] = {"echo": True, "return_token_ids": True, "max_tokens": 1}
        speaker.say("a")
        framed = (await both(api, prompt="é", **fields))[0]
        speaker.say("a")
        plain = (await both(api, prompt="é", add_special_tokens=False, **fields))[0]
        assert framed.prompt_token_ids == [0, *plain.prompt_token_ids]
        assert framed.text == plain.text == "éa"
        speaker.say("a")
        assert (await both(api, prompt="", **fields))[0].prompt_token_ids == [0]
        assert (await refused(api, prompt="", add_special_tokens=False))["param"] == "prompt"


async def test_events_have_no_more_than_news(api: Api, speaker: Speaker) -> None:
    speaker.say("👍")
    events = await stream(api, prompt="x", stop_token_ids=[0])
    assert events[0]["choices"][0]["text"] == "👍"
