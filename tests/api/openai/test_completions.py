"""POST /v1/completions over a fake engine: what reaches it, and how the answers come back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.core.request import SamplingParams
from tests.api.completing import PATH, both, complete, joined, refused, stream, texts
from tests.api.conftest import END, SETTINGS, Api, RecordingRunner, serve
from tests.fakes import alone, scores_alone
from tests.runtime.conftest import GatedRunner

ENDLESS: dict[str, Any] = {"seed": 5, "ignore_eos": True, "max_tokens": 8}


def letters(ids: tuple[int, ...]) -> str:
    return "".join(chr(token + ord(" ")) for token in ids)


async def test_what_was_asked_reaches_the_engine(api: Api) -> None:
    await complete(
        api,
        prompt="!%+,",
        max_tokens=9,
        temperature=0.5,
        top_k=7,
        logit_bias={"5": 1.5},
        bad_words=["!"],
        min_tokens=2,
        seed=-1,
        logprobs=3,
        stop_token_ids=[5],
        priority=-3,
        cache_salt="s",
        prompt_logprobs=2,
    )
    (request,) = api.requests
    assert letters(request.prompt) == "!%+,"
    assert request.sampling == SamplingParams(
        temperature=0.5,
        top_k=7,
        logit_bias=((5, 1.5),),
        bad_words=request.sampling.bad_words,
        min_tokens=2,
        seed=2**64 - 1,
        logprobs=3,
    )
    assert len(request.sampling.bad_words) == 2
    assert (request.max_tokens, request.priority, request.cache_salt) == (9, -3, "s")
    assert (set(request.stop_token_ids), request.prompt_logprobs) == ({END, 5}, 2)


async def test_sixteen_tokens_unless_told_otherwise(api: Api) -> None:
    await complete(api, prompt="!")
    await complete(api, prompt="!", max_tokens=5000)
    assert [request.max_tokens for request in api.requests] == [16, 1023]


async def test_the_text_is_what_the_engine_says(api: Api) -> None:
    body = await complete(api, prompt="!%", return_token_ids=True, **ENDLESS)
    (choice,) = body["choices"]
    assert choice["token_ids"] == alone(api.requests[0])
    assert choice["prompt_token_ids"] == list(api.requests[0].prompt)
    shown = [token for token in choice["token_ids"] if token]
    assert choice["text"] == letters(tuple(shown))
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)
    assert body["usage"]["prompt_tokens"] == 2
    assert body["usage"]["completion_tokens"] == 8
    assert body["id"].startswith("cmpl-")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("!%", ["!%"]),
        (["!%", "+"], ["!%", "+"]),
        ([1, 5], ["!%"]),
        ([[1, 5], [11]], ["!%", "+"]),
    ],
)
async def test_every_form_of_prompt(prompt: Any, expected: list[str], api: Api) -> None:
    found = await texts(api, prompt=prompt, echo=True, max_tokens=0)
    assert found == expected
    assert [letters(request.prompt) for request in api.requests] == expected


async def test_prompts_are_answered_as_if_each_came_alone(api: Api) -> None:
    prompts = ["!%", "+,-", "!%"]
    body = await complete(api, prompt=prompts, n=2, **ENDLESS)
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    found = [choice["text"] for choice in body["choices"]]
    for place, prompt in enumerate(prompts):
        single = await complete(api, prompt=prompt, n=2, **ENDLESS)
        assert [c["text"] for c in single["choices"]] == found[2 * place : 2 * place + 2]
    assert len(set(found)) == 4
    assert body["usage"]["prompt_tokens"] == 2 + 3 + 2, "each prompt counts once"
    assert body["usage"]["completion_tokens"] == 6 * 8


async def test_answers_follow_the_first_one_to_their_prompt(api: Api) -> None:
    await complete(api, prompt=["!%", "+,-"], n=3, prompt_logprobs=0, **ENDLESS)
    requests = api.requests
    assert [request.follows for request in requests] == [
        *(None, requests[0].id, requests[0].id),
        *(None, requests[3].id, requests[3].id),
    ]
    assert [request.prompt_logprobs for request in requests] == [0, None, None] * 2
    seeds = [request.sampling.seed for request in requests]
    assert len(set(seeds)) == 3
    assert seeds[:3] == seeds[3:]


async def test_streamed_answers_equal_whole_ones(api: Api) -> None:
    answers = await both(
        api, prompt=["!%", "+,-"], n=3, logprobs=2, return_token_ids=True, echo=True, **ENDLESS
    )
    assert len(answers) == 6
    for index, answer in answers.items():
        assert answer.text.startswith(["!%", "+,-"][index // 3])
        assert answer.finish_reason == "length"
        assert len(answer.token_ids) == 8
    await both(api, prompt=["!%", "+,-"], seed=5)


async def test_the_echo_of_a_long_prompt_has_all_scores(api: Api) -> None:
    """The prompt takes several steps; what follows it must not be told before its end."""
    prompt = [1 + index % 40 for index in range(300)]
    answers = await both(api, prompt=prompt, n=3, logprobs=1, echo=True, **ENDLESS)
    expected = [None, *(max(score.logprob, -9999) for score in scores_alone(api.requests[0]))]
    for answer in answers.values():
        assert answer.logprobs["token_logprobs"][:300] == expected
        assert answer.text.startswith(letters(tuple(prompt)))


async def test_usage_of_a_stream_counts_all_prompts(api: Api) -> None:
    options = {"include_usage": True}
    events = await stream(api, prompt=["!%", "+,-"], n=2, stream_options=options, **ENDLESS)
    *chunks, last = events
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (5, 32)
    options["continuous_usage_stats"] = True
    *chunks, last = await stream(api, prompt=["!%", "+,-"], stream_options=options, **ENDLESS)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert 0 < counts[0] <= counts[-1] == last["usage"]["completion_tokens"] == 16


async def test_a_stream_tells_nothing_that_was_not_asked_for(api: Api) -> None:
    events = await stream(api, prompt="!%", **ENDLESS)
    for event in events:
        assert "usage" not in event
        assert event["choices"][0]["logprobs"] is None
        assert "token_ids" not in event["choices"][0]
        assert event["token"]["logprob"] is None
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * (
        len(events) - 1
    )


async def test_each_event_has_its_last_token(api: Api) -> None:
    events = await stream(api, prompt="!%", logprobs=0, return_token_ids=True, **ENDLESS)
    for event in events:
        token, (choice,) = event["token"], event["choices"]
        assert token["id"] == choice["token_ids"][-1]
        assert token["special"] == (token["id"] == 0)
        assert token["logprob"] == choice["logprobs"]["token_logprobs"][-1]


async def test_scoring_a_prompt_generates_nothing(api: Api) -> None:
    for logprobs in (None, 1):
        fields = {"prompt": ["!%+", "$"], "echo": True, "max_tokens": 0, "logprobs": logprobs}
        answers = await both(api, **fields)
        assert [answer.text for answer in answers.values()] == ["!%+", "$"]
        assert {answer.finish_reason for answer in answers.values()} == {"length"}
        usage = (await complete(api, **fields))["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 0)
    assert answers[0].logprobs["tokens"] == ["!", "%", "+"]
    assert answers[0].logprobs["text_offset"] == [0, 1, 2]
    assert answers[1].logprobs["token_logprobs"] == [None]


async def test_prompt_logprobs_are_of_each_prompt(api: Api) -> None:
    body = await complete(api, prompt=["!%+", "$&"], n=2, prompt_logprobs=1, max_tokens=2)
    for choice, prompt in zip(body["choices"], ["!%+", "!%+", "$&", "$&"], strict=True):
        first, *rest = choice["prompt_logprobs"]
        assert first is None
        assert [next(iter(one.values()))["decoded_token"] for one in rest] == list(prompt[1:])
        assert choice["logprobs"] is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [50]}, "prompt"),
        ({"prompt": [[1], [1, 50]]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["!", ""]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": "!" * 1024}, "prompt"),
        ({"prompt": "!" * 100_000}, "prompt"),
        ({"prompt": ["!", "%"] * 4}, "prompt"),
        ({"prompt": ["!", "%"], "n": 4}, "prompt"),
        ({"n": 7}, "n"),
        ({"logit_bias": {"50": 1}}, "logit_bias"),
        ({"stop_token_ids": [50]}, "stop_token_ids"),
        ({"allowed_token_ids": [50]}, "allowed_token_ids"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
        ({"messages": []}, "messages"),
        ({"suffix": "x"}, "suffix"),
        ({"stop": ""}, "stop"),
    ],
)
async def test_what_cannot_be_done_is_named(fields: dict[str, Any], param: str, api: Api) -> None:
    assert (await refused(api, **({"prompt": "!"} | fields)))["param"] == param
    assert api.requests == []


async def test_a_prompt_without_room_says_so(api: Api) -> None:
    error = await refused(api, prompt=["!", "!" * 1024])
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    assert "1024" in error["message"]
    assert "prompt" in error["message"].split(".")[-2]
    assert len(await texts(api, prompt="!" * 1023)) == 1


async def test_places_are_taken_together_or_not_at_all(api: Api) -> None:
    taken = api.engine.open_many(2)
    response = await api.ask("POST", PATH, json={"prompt": ["!"] * 5})
    assert response.status_code == 429
    assert response.json()["error_type"] == "overloaded"
    assert api.engine.num_open == 2
    assert len(await texts(api, prompt=["!"] * 4)) == 4
    for one in taken:
        one.close()


async def test_prompts_that_can_never_wait_together_are_refused(byte_tokenizer: Tokenizer) -> None:
    settings = SETTINGS.model_copy(update={"max_queue_tokens": 5})
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        assert (await refused(api, prompt=["!!!", "!!!"]))["param"] == "prompt"
        assert len(await texts(api, prompt=["!!!", "!!"])) == 2
        assert len(await texts(api, prompt="!!!!!!", n=2)) == 2


async def test_one_failing_prompt_fails_all(api: Api) -> None:
    api.runner.is_failing = True
    response = await api.ask("POST", PATH, json={"prompt": ["!", "%"], "n": 2})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "step_failed"
    # The other prompt may still have steps before it, which would fail instead of the next.
    assert len(await texts(api, prompt="!")) == 1
    api.runner.is_failing = True
    response = await api.ask("POST", PATH, json={"prompt": "!", "stream": True})
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    assert '"step_failed"' in response.text


@pytest.mark.parametrize("streamed", [True, False])
async def test_all_answers_can_be_cancelled_by_one_id(
    streamed: bool, byte_tokenizer: Tokenizer
) -> None:
    runner = GatedRunner()
    async with serve(runner, byte_tokenizer) as api:
        try:
            body = {"prompt": ["!", "%"], "n": 2, "stream": streamed}
            headers = {"x-request-id": "mine"}
            asking = asyncio.create_task(api.ask("POST", PATH, json=body, headers=headers))
            deadline = time.monotonic() + 30
            while (await api.ask("POST", f"{PATH}/mine/cancel")).status_code != 200:
                assert time.monotonic() < deadline, "never found"
                await asyncio.sleep(0)
            assert api.engine.num_open == 0, "nobody was cancelled"
            assert '"cancelled"' in (await asking).text
        finally:
            runner.allow(10_000)


async def test_labels_change_nothing(api: Api) -> None:
    plain = await complete(api, prompt="!", **ENDLESS)
    labelled = await complete(api, prompt="!", user="somebody", model="any", suffix="", **ENDLESS)
    assert labelled["choices"] == plain["choices"]


async def test_the_last_event_of_each_choice_finishes_it(api: Api) -> None:
    found = joined(await stream(api, prompt=["!", "%"], n=2, **ENDLESS))
    assert [answer.finish_reason for answer in found.values()] == ["length"] * 4
