"""The route over a fake engine: what reaches the engine, and how several answers come back."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.core.request import SamplingParams
from millstream.intake.requests.chat import ChatRequest
from millstream.runtime.messages import encode
from tests.api.conftest import END, Api


def contents(events: list[Any]) -> dict[int, str]:
    """The joined text of each choice of a stream."""
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            index = choice["index"]
            texts[index] = texts.get(index, "") + choice["delta"]["content"]
    return texts


async def test_every_sampling_field_reaches_the_engine(api: Api) -> None:
    await api.answer(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        typical_p=0.8,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        presence_penalty=-0.4,
        logit_bias={"5": 1.5, "7": -100},
        bad_words=["!", '"#'],
        allowed_token_ids=[3, 4, 3],
        min_tokens=2,
        seed=-1,
        logprobs=True,
        top_logprobs=3,
    )
    (request,) = api.requests
    words = request.sampling.bad_words
    assert request.sampling == SamplingParams(
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.1,
        typical_p=0.8,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        presence_penalty=-0.4,
        logit_bias=((5, 1.5), (7, -100.0)),
        bad_words=words,
        allowed_token_ids=(3, 4),
        min_tokens=2,
        seed=2**64 - 1,
        logprobs=3,
    )
    assert [len(word) for word in words] == [1, 2, 2, 3], "with and without a space before"


@pytest.mark.parametrize("value", [2**31, 2**63, 2**64, 10**300])
async def test_integers_of_any_size_are_refused_or_can_be_sent_to_the_engine(
    value: int, api: Api
) -> None:
    """JSON has no largest integer; the protocol between the processes does."""
    for name, field in ChatRequest.model_fields.items():
        if "int" not in str(field.annotation):
            continue
        for wrapped in (value, [value]):
            response = await api.post(**{name: wrapped})
            assert response.status_code == 400 or encode(api.requests[-1]), name
    await api.answer(top_k=value)
    assert api.requests[-1].sampling.top_k == api.runner.info.vocab_size


async def test_the_rest_reaches_the_engine(api: Api) -> None:
    await api.answer(
        stop_token_ids=[5, 6, 5], priority=-3, cache_salt="s", prompt_logprobs=2, max_tokens=None
    )
    await api.answer(stop_token_ids=[5], ignore_eos=True)
    await api.answer()
    first, second, third = api.requests
    assert (first.priority, first.cache_salt, first.prompt_logprobs) == (-3, "s", 2)
    assert first.max_tokens == 1024 - len(first.prompt)
    assert set(first.stop_token_ids) == {END, 5, 6}
    assert second.stop_token_ids == (5,)
    assert third.stop_token_ids == (END,)
    assert (third.priority, third.cache_salt, third.prompt_logprobs) == (0, "", None)


async def test_the_prompt_is_what_was_asked_for(api: Api) -> None:
    async def end(**fields: Any) -> str:
        messages = [
            {"role": "user", "content": "!"},
            {"role": "assistant", "content": "$%"},
        ]
        await api.answer(messages=messages, **fields)
        return "".join(chr(token + ord(" ")) for token in api.requests[-1].prompt)

    assert await end() == "!$%"
    assert await end(add_generation_prompt=True) == "!$%?"
    assert await end(continue_final_message=False) == "!$%?"
    assert await end(add_generation_prompt=False) == "!$%"
    assert await end(continue_final_message=True) == "!$%"
    assert await end(reasoning_effort="high") == "!$%#"
    assert await end(reasoning={"effort": "high"}) == "!$%#"
    assert await end(reasoning_effort="none") == "!$%"
    assert await end(chat_template_kwargs={"enable_thinking": True}) == "!$%#"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"49": 1, "50": 1}}, "logit_bias"),
        ({"allowed_token_ids": [50]}, "allowed_token_ids"),
        ({"stop_token_ids": [10**9], "min_tokens": 1}, "stop_token_ids"),
        ({"allowed_token_ids": [END], "min_tokens": 1}, "allowed_token_ids"),
        ({"allowed_token_ids": [1, 2], "bad_words": ["!", '"']}, "allowed_token_ids"),
        ({"min_tokens": 5000, "max_tokens": None}, "min_tokens"),
        ({"n": 7}, "n"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"unknown": True}}, "chat_template_kwargs"),
        (
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"},
            "reasoning_effort",
        ),
    ],
)
async def test_what_the_model_cannot_do_is_named(
    fields: dict[str, Any], param: str, api: Api
) -> None:
    for stream in (False, True):
        response = await api.post(stream=stream, **fields)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
    assert api.requests == []


async def test_several_answers_are_those_of_single_requests(api: Api) -> None:
    body = await api.answer(n=4, seed=5)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert len(set(texts)) == 4
    leader, *others = api.requests
    assert leader.follows is None
    assert {other.follows for other in others} == {leader.id}
    seeds = [request.sampling.seed for request in api.requests]
    assert len(set(seeds)) == 4
    for text, seed in zip(texts, seeds, strict=True):
        alone = await api.answer(seed=seed)
        assert alone["choices"][0]["message"]["content"] == text
    usage = body["usage"]
    assert usage["prompt_tokens"] == len(leader.prompt)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] <= 4 * 12


async def test_a_seed_repeats_all_answers(api: Api) -> None:
    def texts(body: dict[str, Any]) -> list[str]:
        return [choice["message"]["content"] for choice in body["choices"]]

    first = texts(await api.answer(n=3, seed=5))
    assert texts(await api.answer(n=3, seed=5)) == first
    assert texts(await api.answer(n=2, seed=5)) == first[:2]
    assert texts(await api.answer(seed=5)) == first[:1]
    assert texts(await api.answer(n=3, seed=6)) != first
    assert texts(await api.answer(n=3)) != texts(await api.answer(n=3))


async def test_streamed_answers_equal_whole_ones(api: Api) -> None:
    fields: dict[str, Any] = {"n": 3, "seed": 5, "logprobs": True, "return_token_ids": True}
    whole = await api.answer(**fields)
    events = await api.events(**fields, stream_options={"include_usage": True})
    *chunks, last = events
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert sum("prompt_token_ids" in event for event in events) == 1
    choices = [event["choices"][0] for event in chunks]
    for choice in whole["choices"]:
        mine = [one for one in choices if one["index"] == choice["index"]]
        assert [one["delta"].get("role") for one in mine] == ["assistant"] + [None] * (
            len(mine) - 1
        )
        assert "".join(one["delta"]["content"] for one in mine) == choice["message"]["content"]
        assert [one["finish_reason"] for one in mine][-1] == choice["finish_reason"]
        assert [one["finish_reason"] for one in mine][:-1] == [None] * (len(mine) - 1)
        logprobs = [
            entry for one in mine if one["logprobs"] for entry in one["logprobs"]["content"]
        ]
        assert logprobs == choice["logprobs"]["content"]
        assert [token for one in mine for token in one["token_ids"]] == choice["token_ids"]


async def test_answers_that_stop_at_once_leave_the_others_alone(api: Api) -> None:
    plain = await api.answer(n=3, seed=5, ignore_eos=True, max_tokens=20)
    texts = [choice["message"]["content"] for choice in plain["choices"]]
    stop = next(letter for letter in texts[1] if letter not in texts[0] and letter not in texts[2])
    for fields in ({"stop": stop}, {"stop": stop, "include_stop_str_in_output": True}):
        body = await api.answer(n=3, seed=5, ignore_eos=True, max_tokens=20, **fields)
        found = [choice["message"]["content"] for choice in body["choices"]]
        end = texts[1].index(stop) + ("include_stop_str_in_output" in fields)
        assert found == [texts[0], texts[1][:end], texts[2]]
        reasons = [choice["finish_reason"] for choice in body["choices"]]
        assert reasons == ["length", "stop", "length"]


async def test_running_usage_counts_up_to_the_end(api: Api) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await api.events(n=2, seed=5, ignore_eos=True, stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[-2:] == [24, 24]
    assert {event["usage"]["prompt_tokens"] for event in events} == {5}


async def test_prompt_logprobs_cover_the_prompt_once(api: Api) -> None:
    body = await api.answer(n=2, prompt_logprobs=1, return_token_ids=True)
    prompt = body["prompt_token_ids"]
    first, *rest = body["prompt_logprobs"]
    assert first is None
    assert [int(next(iter(one))) for one in rest] == prompt[1:]
    assert [request.prompt_logprobs for request in api.requests] == [1, None]


async def test_labels_change_nothing(api: Api) -> None:
    plain = await api.answer(seed=5)
    labels = {
        "user": "somebody",
        "safety_identifier": "x",
        "prompt_cache_key": "y",
        "metadata": {"a": "b"},
        "model": "any",
    }
    labelled = await api.answer(seed=5, **labels)
    assert labelled["choices"] == plain["choices"]
