"""Text completions of real models, as the official clients read them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai.types import Completion

from .harness import RunningServer
from .sdk import openai_client

PROMPT = "<|im_start|>user\nCount to 10<|im_end|>\n<|im_start|>assistant\n"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


def complete(server: RunningServer, prompt: Any = PROMPT, **fields: Any) -> Completion:
    with openai_client(server.url) as client:
        answer: Completion = client.completions.create(
            model="any", prompt=prompt, **(GREEDY | fields)
        )
    return answer


def streamed(server: RunningServer, prompt: Any = PROMPT, **fields: Any) -> list[Completion]:
    with openai_client(server.url) as client:
        return list(
            client.completions.create(model="any", prompt=prompt, stream=True, **(GREEDY | fields))
        )


def texts_of(answer: Completion) -> list[str]:
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.text for choice in answer.choices]


def test_the_ids_of_a_conversation_are_answered_as_chat_answers(
    demo_server: RunningServer,
) -> None:
    chat = demo_server.chat("Count to 10", max_tokens=24, return_token_ids=True).json()
    (choice,) = complete(
        demo_server, chat["prompt_token_ids"], extra_body={"return_token_ids": True}
    ).choices
    assert choice.text == chat["choices"][0]["message"]["content"]
    assert choice.model_extra is not None
    assert choice.model_extra["token_ids"] == chat["choices"][0]["token_ids"]
    assert complete(demo_server).choices[0].text == choice.text, "text and ids are one prompt"


@pytest.mark.parametrize("name", ["demo_server", "endless_server"])
def test_logprobs_are_those_of_chat(name: str, request: pytest.FixtureRequest) -> None:
    server: RunningServer = request.getfixturevalue(name)
    chat = server.chat("Hello", max_tokens=12, logprobs=True, top_logprobs=2, return_token_ids=True)
    body = chat.json()
    expected = body["choices"][0]["logprobs"]["content"]
    (choice,) = complete(server, body["prompt_token_ids"], max_tokens=12, logprobs=2).choices
    found = choice.logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert found.text_offset is not None
    assert found.top_logprobs is not None
    count = len(expected)
    assert found.token_logprobs[:count] == pytest.approx(
        [one["logprob"] for one in expected], abs=1e-3
    )
    assert len(found.token_logprobs) in (count, count + 1), "the end of the turn has one too"
    for one, offset, top in zip(expected, found.text_offset, found.top_logprobs, strict=False):
        assert choice.text.startswith(one["token"], offset)
        numbers = [entry["logprob"] for entry in one["top_logprobs"]]
        assert max(top.values()) == pytest.approx(numbers[0], abs=1e-3)


@pytest.mark.parametrize("name", ["demo_server", "endless_server"])
def test_an_echo_scores_what_was_generated_alike(name: str, request: pytest.FixtureRequest) -> None:
    """The answer, sent back as part of the prompt, has the log probabilities that it had."""
    server: RunningServer = request.getfixturevalue(name)
    extra = {"return_token_ids": True}
    first = complete(server, logprobs=1, max_tokens=12, extra_body=extra).choices[0]
    assert first.model_extra is not None
    assert first.logprobs is not None
    assert first.logprobs.token_logprobs is not None
    ids = first.model_extra["prompt_token_ids"] + first.model_extra["token_ids"]
    scored = complete(server, ids, echo=True, logprobs=1, max_tokens=0)
    (choice,) = scored.choices
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.text_offset is not None
    assert len(choice.logprobs.token_logprobs) == len(ids)
    assert choice.logprobs.token_logprobs[0] is None
    count = len(first.model_extra["token_ids"])
    again = choice.logprobs.token_logprobs[-count:]
    assert again == pytest.approx(first.logprobs.token_logprobs, abs=2e-3)
    assert choice.text.startswith(PROMPT + first.text)
    assert scored.usage is not None
    assert (scored.usage.prompt_tokens, scored.usage.completion_tokens) == (len(ids), 0)


def test_a_list_of_prompts_is_answered_in_order(endless_server: RunningServer) -> None:
    prompts = ["Once upon a time", "Grüße, 👍", "Hello", "x"]
    alone = [complete(endless_server, prompt).choices[0].text for prompt in prompts]
    together = complete(endless_server, prompts)
    assert texts_of(together) == alone
    assert together.usage is not None
    assert together.usage.completion_tokens == 4 * 24
    echoed = complete(endless_server, prompts, echo=True)
    assert texts_of(echoed) == [p + text for p, text in zip(prompts, alone, strict=True)]


def test_several_answers_to_each_prompt(endless_server: RunningServer) -> None:
    fields: dict[str, Any] = {"n": 3, "temperature": 1.2, "seed": 7}
    texts = texts_of(complete(endless_server, ["Hello", "x"], **fields))
    assert len(set(texts)) == 6
    assert texts_of(complete(endless_server, "Hello", **fields)) == texts[:3]
    assert texts_of(complete(endless_server, "x", **fields)) == texts[3:]


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_is_the_whole_answer(echo: bool, endless_server: RunningServer) -> None:
    fields: dict[str, Any] = {"n": 2, "temperature": 1, "seed": 3, "echo": echo, "logprobs": 1}
    prompts = ["Grüße, 👍", "x" * 300]
    whole = complete(endless_server, prompts, **fields)
    options = {"include_usage": True}
    *chunks, last = streamed(endless_server, prompts, stream_options=options, **fields)
    texts = [""] * 4
    tokens: list[list[str]] = [[] for _ in range(4)]
    offsets: list[list[int]] = [[] for _ in range(4)]
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.text
        if choice.logprobs is not None:
            tokens[choice.index] += choice.logprobs.tokens or []
            offsets[choice.index] += choice.logprobs.text_offset or []
    assert texts == texts_of(whole)
    for choice in whole.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == tokens[choice.index]
        assert choice.logprobs.text_offset == offsets[choice.index]
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens == 4 * 24


def test_a_stop_string_ends_the_completion(demo_server: RunningServer) -> None:
    (choice,) = complete(demo_server, stop="\n5", logprobs=0).choices
    assert (choice.text, choice.finish_reason) == ("1\n2\n3\n4", "stop")
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == "1\n2\n3\n4"
    chunks = streamed(demo_server, stop="\n5")
    assert "".join(chunk.choices[0].text for chunk in chunks) == "1\n2\n3\n4"


def test_a_completion_can_have_a_form(demo_server: RunningServer) -> None:
    text = complete(demo_server, extra_body={"guided_regex": "[a-c]{3}"}).choices[0].text
    assert len(text) == 3
    assert set(text) <= set("abc")


def test_tokens_as_hugging_face_reads_them(demo_server: RunningServer) -> None:
    chunks = streamed(demo_server)
    tokens = [(chunk.model_extra or {})["token"] for chunk in chunks]
    assert [token["text"] for token in tokens] == [chunk.choices[0].text for chunk in chunks]
    assert all(isinstance(token["id"], int) for token in tokens)


def test_leaving_a_stream_of_several_prompts_frees_all(endless_server: RunningServer) -> None:
    with openai_client(endless_server.url) as client:
        stream = client.completions.create(
            model="any", prompt=["a", "b"], n=2, max_tokens=30_000, stream=True
        )
        next(stream)
        endless_server.wait_open(4)
        stream.close()
    endless_server.wait_idle()


def test_what_cannot_be_done_is_named(small_server: RunningServer) -> None:
    def refuse(**fields: Any) -> dict[str, Any]:
        response = httpx.post(f"{small_server.url}/v1/completions", json=fields, timeout=30)
        assert response.status_code == 400, response.text
        error: dict[str, Any] = response.json()["error"]
        return error

    assert refuse(prompt="")["param"] == "prompt"
    assert refuse(prompt=["a"] * 4)["param"] == "prompt"
    assert refuse(prompt=[10**6])["param"] == "prompt"
    assert refuse(prompt="a", suffix="b")["param"] == "suffix"
    assert refuse(prompt="a b " * 200)["code"] == "context_length_exceeded"
    small_server.wait_idle()
