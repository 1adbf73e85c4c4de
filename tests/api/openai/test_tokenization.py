"""/tokenize and /detokenize: what the model reads, in vLLM's shapes, however long it is."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.responses import Response
from tokenizers import Tokenizer, processors

from millstream.api.openai.tokenize.endpoints import Detokenized, Tokenized, write_json
from tests.api.conftest import Api, RecordingRunner, serve

USER = [{"role": "user", "content": "!%+,"}]
INVALID, UNKNOWN, UNSUPPORTED = "invalid_value", "unknown_parameter", "unsupported_parameter"
OPEN = [*USER, {"role": "assistant", "content": "+!"}]


async def tokenize(api: Api, **body: Any) -> Tokenized:
    response = await api.ask("POST", "/tokenize", json=body)
    assert response.status_code == 200, response.text
    answer: Tokenized = TypeAdapter(Tokenized).validate_json(response.content)
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == api.engine.info.max_context
    return answer


async def refusal(api: Api, path: str, **body: Any) -> tuple[str, str]:
    response = await api.ask("POST", path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    return error["param"], error["code"]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": USER},
        {"messages": [{"role": "system", "content": "+"}, *USER]},
        {"messages": OPEN},
        {"messages": USER, "add_generation_prompt": False},
        {"messages": OPEN, "continue_final_message": True},
        {"messages": USER, "chat_template_kwargs": {"enable_thinking": True}},
        {"messages": USER, "reasoning_effort": "low"},
        {"messages": USER, "reasoning": {"effort": "low"}},
        {"messages": USER, "reasoning_effort": "none", "model": "any"},
        {"messages": USER, "add_special_tokens": False, "tools": None, "tool_choice": None},
    ],
)
async def test_a_conversation_is_the_prompt_of_its_answer(fields: dict[str, Any], api: Api) -> None:
    answer = await api.answer(**fields, return_token_ids=True)
    assert (await tokenize(api, **fields))["tokens"] == answer["prompt_token_ids"]


async def test_prompts_of_these_fields_differ(api: Api) -> None:
    """So that the test above compares something."""
    switched = {"enable_thinking": True}
    prompts = [
        (await tokenize(api, messages=USER))["tokens"],
        (await tokenize(api, messages=USER, add_generation_prompt=False))["tokens"],
        (await tokenize(api, messages=OPEN, continue_final_message=True))["tokens"],
        (await tokenize(api, messages=USER, chat_template_kwargs=switched))["tokens"],
    ]
    assert len(set(map(tuple, prompts))) == len(prompts)


async def test_a_text(api: Api, byte_tokenizer: Tokenizer) -> None:
    text = "hello worldé <end>"
    answer = await tokenize(api, prompt=text, return_token_strs=True)
    assert answer["tokens"] == byte_tokenizer.encode(text).ids
    assert answer["token_strs"] == byte_tokenizer.encode(text).tokens
    assert answer["token_strs"][-1] == "<end>"
    assert (await tokenize(api, prompt=text))["token_strs"] is None
    assert (await tokenize(api, prompt=""))["tokens"] == []


async def test_special_tokens_around_a_text(byte_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    first = tokenizer.token_to_id("<end>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", first)]
    )
    async with serve(RecordingRunner(), tokenizer) as api:
        plain = (await tokenize(api, prompt="hello", add_special_tokens=False))["tokens"]
        for fields in ({}, {"add_special_tokens": True}, {"add_special_tokens": None}):
            assert (await tokenize(api, prompt="hello", **fields))["tokens"] == [first, *plain]
        # The chat template writes what a conversation begins with.
        assert first not in (await tokenize(api, messages=USER))["tokens"]


async def test_what_is_too_long_is_counted(api: Api) -> None:
    messages = [{"role": "user", "content": "!" * 70_000}]
    response = await api.post(messages=messages)
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert (await tokenize(api, messages=messages))["count"] == 70_001
    assert (await tokenize(api, prompt="!" * 70_000))["count"] == 70_000


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "prompt", INVALID),
        ({"prompt": "a", "messages": USER}, "prompt", INVALID),
        ({"prompt": ["a"]}, "prompt", INVALID),
        ({"prompt": None}, "prompt", INVALID),
        ({"prompt": "a", "add_special_tokens": 1}, "add_special_tokens", INVALID),
        ({"prompt": "a", "return_token_strs": "yes"}, "return_token_strs", INVALID),
        ({"prompt": "a", "tools": []}, "tools", UNKNOWN),
        ({"prompt": "a", "x": 1}, "x", UNKNOWN),
        ({"messages": USER, "temperature": 1}, "temperature", UNKNOWN),
        ({"messages": USER, "add_special_tokens": True}, "add_special_tokens", UNSUPPORTED),
        ({"messages": USER, "chat_template": "x"}, "chat_template", UNSUPPORTED),
        ({"messages": USER, "return_token_strs": 1}, "return_token_strs", INVALID),
        ({"messages": []}, "messages", INVALID),
        ({"messages": USER, "continue_final_message": True}, "continue_final_message", INVALID),
        ({"messages": USER, "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", INVALID),
    ],
)
async def test_refused_bodies(body: dict[str, Any], param: str, code: str, api: Api) -> None:
    assert await refusal(api, "/tokenize", **body) == (param, code)


async def test_ids_become_the_text_they_are(api: Api, byte_tokenizer: Tokenizer) -> None:
    async def detokenize(*tokens: int) -> str:
        response = await api.ask("POST", "/detokenize", json={"tokens": tokens, "model": "any"})
        answer: Detokenized = TypeAdapter(Detokenized).validate_json(response.content)
        return answer["prompt"]

    text = "%!<end>+,"
    assert await detokenize(*byte_tokenizer.encode(text).ids) == text
    assert await detokenize() == ""


@pytest.mark.parametrize("tokens", [[50], [1, 2**40], [2**80], [-1], ["1"], [1.5], [[1]], None, 3])
async def test_ids_that_the_model_does_not_have(tokens: Any, api: Api) -> None:
    response = await api.ask("POST", "/detokenize", json={"tokens": tokens})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith("tokens")
    assert (await api.ask("POST", "/detokenize", json={"tokens": [49]})).status_code == 200


async def test_other_fields_of_detokenize(api: Api) -> None:
    refused = await refusal(api, "/detokenize", tokens=[1], skip_special_tokens=True)
    assert refused == ("skip_special_tokens", UNKNOWN)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_large_bodies_are_refused(path: str, api: Api) -> None:
    response = await api.ask("POST", path, json={"prompt": "x" * 2_000_001})
    assert response.status_code == 413


async def test_many_long_texts_leave_threads_for_others(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()
    entered: asyncio.Queue[None] = asyncio.Queue()

    def write(answer: Tokenized | Detokenized) -> Response:
        loop.call_soon_threadsafe(entered.put_nowait, None)
        assert gate.wait(30)
        return write_json(answer)

    monkeypatch.setattr("millstream.api.openai.tokenize.endpoints.write_json", write)
    held = [asyncio.create_task(tokenize(api, prompt="a")) for _ in range(2)]
    try:
        for _ in held:
            await entered.get()
        waiting = asyncio.create_task(tokenize(api, prompt="b"))
        assert await status_without_client(api, {"prompt": "c"}) == 499
        assert await api.answer()
        assert entered.empty()
    finally:
        gate.set()
    for task in [*held, waiting]:
        assert (await task)["count"] == 1
    assert entered.qsize() == 1, "the client that had left was worked for"


async def status_without_client(api: Api, body: dict[str, Any]) -> int:
    """The status that a client of /tokenize would get which leaves once the body is sent."""
    sent: list[Any] = []
    messages = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/tokenize", "root_path": ""}
    await api.app(scope | {"headers": [], "query_string": b""}, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_the_work_is_not_done_on_the_event_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def write(answer: Tokenized | Detokenized) -> Response:
        threads.append(threading.get_ident())
        return write_json(answer)

    monkeypatch.setattr("millstream.api.openai.tokenize.endpoints.write_json", write)
    await tokenize(api, prompt="a")
    await tokenize(api, messages=USER)
    await api.ask("POST", "/detokenize", json={"tokens": [1]})
    assert len(threads) == 3
    assert threading.get_ident() not in threads
