"""Several answers and log probabilities, as the official clients read them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .harness import RunningServer
from .sdk import CLIENTS_WITH_LOGPROBS, Collect, openai_client, openai_sync
from .wire import messages

SAMPLED: dict[str, Any] = {"temperature": 1.2, "max_tokens": 16, "seed": 7}
SCORED: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "logprobs": True, "top_logprobs": 3}


def complete(server: RunningServer, content: str = "Hello", **fields: Any) -> ChatCompletion:
    with openai_client(server.url) as client:
        answer: ChatCompletion = client.chat.completions.create(
            model="any", messages=messages(content), **fields
        )
    return answer


def texts_of(answer: ChatCompletion) -> list[str]:
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.message.content or "" for choice in answer.choices]


def streamed_texts(chunks: list[ChatCompletionChunk], count: int) -> list[str]:
    texts = [""] * count
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    return texts


def test_several_answers_differ_and_repeat_with_their_seed(endless_server: RunningServer) -> None:
    first = complete(endless_server, n=3, **SAMPLED)
    texts = texts_of(first)
    assert len(set(texts)) == 3
    assert texts_of(complete(endless_server, n=3, **SAMPLED)) == texts
    assert texts_of(complete(endless_server, **SAMPLED)) == texts[:1]
    assert first.usage is not None
    assert first.usage.completion_tokens == 3 * 16
    chunks = openai_sync(
        endless_server.url, "Hello", n=3, stream_options={"include_usage": True}, **SAMPLED
    )
    *chunks, last = chunks
    assert streamed_texts(chunks, 3) == texts
    assert last.usage.completion_tokens == 3 * 16
    assert last.usage.prompt_tokens == first.usage.prompt_tokens


def test_each_streamed_answer_has_one_role_and_one_end(endless_server: RunningServer) -> None:
    # So long that they cannot all be over before the first is read.
    chunks = openai_sync(endless_server.url, "Hello", n=3, **SAMPLED | {"max_tokens": 500})
    for index in range(3):
        mine = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert [choice.delta.role for choice in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + ["length"]
    order = [chunk.choices[0].index for chunk in chunks]
    assert order != sorted(order), "the answers come one after the other"


def test_the_prompt_is_computed_once(endless_server: RunningServer) -> None:
    content = "Words that fill a few blocks of the cache, and that no other test has sent. " * 4
    alone = complete(endless_server, content, max_tokens=4, temperature=0)
    assert alone.usage is not None
    several = complete(endless_server, content, n=4, max_tokens=4, temperature=0)
    assert texts_of(several) == texts_of(alone) * 4
    assert several.usage is not None
    assert several.usage.prompt_tokens == alone.usage.prompt_tokens


def test_the_sdk_puts_several_answers_together(demo_server: RunningServer) -> None:
    fields: dict[str, Any] = {"n": 2, "temperature": 1.2, "seed": 7}
    expected = texts_of(complete(demo_server, "Count to 5", **fields))
    with (
        openai_client(demo_server.url) as client,
        client.chat.completions.stream(
            model="any", messages=messages("Count to 5"), **fields
        ) as stream,
    ):
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == expected
    assert [choice.message.role for choice in final.choices] == ["assistant", "assistant"]


def test_leaving_a_stream_of_several_frees_all(endless_server: RunningServer) -> None:
    with openai_client(endless_server.url) as client:
        stream = client.chat.completions.create(
            model="any", messages=messages("Hello"), n=4, max_tokens=30_000, stream=True
        )
        next(stream)
        endless_server.wait_open(4)
        stream.close()
    endless_server.wait_idle()


def test_more_answers_than_places_are_named(small_server: RunningServer) -> None:
    response = small_server.chat("Hello", n=4)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"
    assert len(small_server.chat("Hello", n=3, max_tokens=3).json()["choices"]) == 3


@pytest.mark.parametrize("name", ["demo_server", "endless_server"])
def test_reported_tokens_are_the_answer(name: str, request: pytest.FixtureRequest) -> None:
    server: RunningServer = request.getfixturevalue(name)
    choice = complete(server, "Count to 10", **SCORED).choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content
    assert entries
    content = "".join(entry.token for entry in entries)
    assert content == choice.message.content
    raw = b"".join(bytes(entry.bytes or []) for entry in entries)
    # A character that the end of the answer cuts off has bytes, but no text.
    assert raw.decode(errors="replace").rstrip("\ufffd") == content.rstrip("\ufffd")
    for entry in entries:
        assert -9999 <= entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        numbers = [top.logprob for top in entry.top_logprobs]
        assert numbers == sorted(numbers, reverse=True)
        # Greedy: the token is the most probable one.
        top = entry.top_logprobs[0]
        assert (top.token, top.bytes, top.logprob) == (entry.token, entry.bytes, entry.logprob)
        assert sum(map(math.exp, numbers)) <= 1.0001


@CLIENTS_WITH_LOGPROBS
def test_streamed_logprobs_are_those_of_the_whole_answer(
    collect: Collect, endless_server: RunningServer
) -> None:
    chunks = collect(endless_server.url, "Hello", **SCORED)
    reports = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    found = [(entry.token, entry.logprob) for report in reports for entry in report.content]
    whole = complete(endless_server, "Hello", **SCORED).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    assert found == [(entry.token, entry.logprob) for entry in whole.content]


def test_logprobs_are_those_of_the_model_whatever_is_drawn(endless_server: RunningServer) -> None:
    plain = complete(endless_server, **SCORED).choices[0].logprobs
    hot = complete(endless_server, **(SCORED | {"temperature": 2, "seed": 3})).choices[0].logprobs
    assert plain is not None
    assert hot is not None
    assert plain.content is not None
    assert hot.content is not None
    # The first position has the same distribution, at any temperature.
    assert hot.content[0].top_logprobs == plain.content[0].top_logprobs
    assert any(entry.token != entry.top_logprobs[0].token for entry in hot.content)


def test_no_logprobs_unless_asked_for(endless_server: RunningServer) -> None:
    assert complete(endless_server, max_tokens=3).choices[0].logprobs is None
    scored = complete(endless_server, max_tokens=3, logprobs=True).choices[0].logprobs
    assert scored is not None
    assert scored.content is not None
    assert [entry.top_logprobs for entry in scored.content] == [[]] * 3


def test_the_hub_client_reads_logprobs(demo_server: RunningServer) -> None:
    with InferenceClient(base_url=demo_server.url) as client:
        answer = client.chat_completion(
            messages("Count to 3"), logprobs=True, top_logprobs=2, max_tokens=20, temperature=0
        )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_a_stop_string_is_not_reported(demo_server: RunningServer) -> None:
    choice = complete(demo_server, "Count to 10", stop="\n5", **SCORED).choices[0]
    assert choice.message.content == "1\n2\n3\n4"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(entry.token for entry in choice.logprobs.content) == "1\n2\n3\n4"


def test_prompt_logprobs_agree_with_those_of_the_answer(endless_server: RunningServer) -> None:
    answer = endless_server.chat(
        "Hello", temperature=0, max_tokens=6, logprobs=True, return_token_ids=True
    ).json()
    choice = answer["choices"][0]
    drawn = [entry["logprob"] for entry in choice["logprobs"]["content"]]
    conversation = [
        *messages("Hello"),
        {"role": "assistant", "content": choice["message"]["content"]},
    ]
    body = endless_server.chat(
        messages=conversation,
        continue_final_message=True,
        prompt_logprobs=1,
        max_tokens=1,
        return_token_ids=True,
    ).json()
    prompt, scores = body["prompt_token_ids"], body["prompt_logprobs"]
    assert len(scores) == len(prompt)
    assert scores[0] is None
    assert all(str(token) in one for token, one in zip(prompt[1:], scores[1:], strict=True))
    start = len(answer["prompt_token_ids"])
    if prompt[start:] == choice["token_ids"]:  # the same text may be cut into other tokens
        again = [scores[start + i][str(token)] for i, token in enumerate(prompt[start:])]
        assert [one["logprob"] for one in again] == pytest.approx(drawn, abs=1e-3)
        assert {one["rank"] for one in again} == {1}


def test_usage_can_run_along(endless_server: RunningServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = openai_sync(
        endless_server.url, "Hello", temperature=0, max_tokens=10, stream_options=options
    )
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[0] == 0, "the event with the role has no token"
    assert 0 < counts[1] < counts[-1] == last.usage.completion_tokens == 10
