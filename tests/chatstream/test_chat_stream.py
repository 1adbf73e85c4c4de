"""ChatStream's routes: answers on its wire, histories of visits, limits, and what is refused."""

from __future__ import annotations

import asyncio
import logging
import threading
from itertools import pairwise
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import Response
from starlette.testclient import TestClient
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millstream.chatstream import ChatStream
from millstream.chatstream.replies import replaced
from tests.chatstream.conftest import END, DemoPrompt, Make
from tests.embedded.conftest import on_step
from tests.mounted.conftest import served

FIVE = "1\n2\n3\n4\n5"
LONG = {"user_input": "Count to 12"}


def said(client: TestClient, text: str | None) -> str:
    """The whole answer to a text, or the last one made anew."""
    body = {"regenerate": True} if text is None else {"user_input": text}
    response = client.post("/chat_stream", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    *texts, rest = response.text.split(END)
    assert rest == ""
    assert all(late.startswith(early) for early, late in pairwise(texts))
    return texts[-1]


@pytest.mark.parametrize("has_sessions", [True, False])
@pytest.mark.parametrize("prompt_class", [None, DemoPrompt])
def test_a_visit_has_a_history(make: Make, prompt_class: Any, has_sessions: bool) -> None:
    chat_stream = make(chat_prompt_clazz=prompt_class)
    app = Starlette()
    if has_sessions:
        app.add_middleware(SessionMiddleware, secret_key="x")
    chat_stream.append_apis(app)
    with TestClient(app) as client, TestClient(app) as other:
        assert said(client, "Count to 5") == FIVE
        once = client.get("/get_prompt").json()["prompt"]
        assert said(client, None) == FIVE
        assert client.get("/get_prompt").json()["prompt"] == once
        said(client, "Say this is a test")
        assert client.get("/get_prompt").json()["prompt"].startswith(once.rstrip("%0A"))
        assert other.get("/get_prompt").json()["prompt"] is None
        assert client.post("/clear_context").json()["success"] is True
        assert client.get("/get_prompt").json()["prompt"] is None
        assert other.post("/clear_context").json() == {"success": False, "message": "no context."}
        assert list(client.cookies) == ["session" if has_sessions else "millstream_chat"]
        assert "Count" not in str(client.cookies)


def test_parameters_and_opinions_are_of_a_visit(make: Make) -> None:
    heard: list[Any] = []
    chat_stream = make()
    app = FastAPI()
    chat_stream.append_apis(app, {"exclude": ["chat_stream", "set_feedback"]})

    @app.post("/chat_stream")
    async def stream(request: Request) -> Response:
        body = await request.json()
        return await chat_stream.handle_chat_stream_request(
            request, body, lambda request, message: heard.append(message)
        )

    @app.post("/set_feedback")
    async def feedback(request: Request) -> Response:
        opts = {"on_feedback_received": heard.append}
        return await chat_stream.handle_set_feedback_request(request, opts)

    with TestClient(app) as client, TestClient(app) as other:
        changed = client.post("/set_generation_params", json={"temperature": 0.5, "top_k_value": 1})
        params = {"temperature": 0.5, "top_k_value": 1, "top_p_value": 1.0}
        assert changed.json()["generation_params"] == params
        assert client.get("/get_generation_params").json()["generation_params"] == params
        assert other.get("/get_generation_params").json()["generation_params"]["temperature"] == 0
        answer = client.post("/chat_stream", json={"user_input": "Count to 5"})
        assert answer.text.split(END)[-2] == FIVE  # the most probable of one
        name = answer.headers["X-ChatStream-Last-Generated-Message-Id"]
        client.post("/set_feedback", json={"message_id": name, "is_like": True, "form_data": "!"})
        ending, opinion = heard
        assert (ending, opinion["target_message"]) == ("success", FIVE)
        assert (opinion["is_like"], opinion["form_data"]) == (True, "!")
        assert opinion["generation_params"] == params
        assert other.post("/set_feedback", json={"message_id": name}).json()["success"] is False
        usage = client.get("/get_resource_usage").json()["memory_usage"][0]
        assert usage["cpu"]["total_memory"] > usage["cpu"]["used_memory"] > 0
        wrong = client.post("/set_generation_params", json={"temperature": 1.5})
        assert wrong.json() == {
            "success": False,
            "message": "Invalid temperature value. Temperature should be between 0.0 and 1.0.",
        }


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"{}", "user_input"),
        (b'{"user_input": 5}', "user_input"),
        (b'{"user_input": ""}', "user_input"),
        (b'{"regenerate": "yes"}', "regenerate"),
        (b'{"regenerate": true}', "regenerate"),
        (b'{"user_input": "%s"}' % (b"word " * 900), "user_input"),
    ],
)
def test_what_is_wrong_is_named(make: Make, body: bytes, named: str) -> None:
    app = Starlette()
    make().append_apis(app)
    with TestClient(app) as client:
        refused = client.post("/chat_stream", content=body)
        assert refused.status_code == 400
        assert named in refused.json()["detail"]
        assert client.get("/get_prompt").json()["prompt"] is None


def test_a_long_history_loses_its_oldest_turns(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = Starlette()
    make(context_len=70, max_new_tokens=20).append_apis(app)
    caplog.set_level(logging.INFO)
    with TestClient(app) as client:
        for _ in range(4):
            assert said(client, "Count to 5") == FIVE
    assert "messages left out" in caplog.text


async def test_limits_and_endings_on_a_real_connection(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []
    chat_stream = make(
        num_of_concurrent_executions=1, max_queue_size=1, too_many_request_as_http_error=True
    )
    gate = threading.Event()
    on_step(monkeypatch, 5, lambda: gate.wait(60))
    app = FastAPI()
    chat_stream.append_apis(app, {"include": ["get_load", "get_prompt"]})

    @app.post("/chat_stream")
    async def stream(request: Request) -> Response:
        return await chat_stream.handle_chat_stream_request(
            request, callback=lambda request, message: ends.append(message)
        )

    async def load() -> tuple[int, int]:
        worker = (await client.get("/get_load")).json()["chatstream_workers"][0]
        return worker["processing"], worker["waiting"]

    async def until(expected: tuple[int, int]) -> None:
        async with asyncio.timeout(30):
            while await load() != expected:
                pass

    with served(app) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            async with client.stream("POST", "/chat_stream", json=LONG) as running:
                texts = running.aiter_text()  # which ends the connection when it is dropped
                await anext(texts)
                waiting = asyncio.create_task(client.post("/chat_stream", json=LONG))
                await until((1, 1))
                refused = await client.post("/chat_stream", json=LONG)
                assert refused.status_code == 429
                assert refused.json() == {"error": "too_many_requests"}
                assert int(refused.headers["retry-after"]) > 0
                waiting.cancel()
                await until((1, 0))
                client.cookies = running.cookies  # for the next look at its history
            await until((0, 0))
            gate.set()
            async with asyncio.timeout(30):
                while len(ends) < 2:
                    kept = (await client.get("/get_prompt")).json()["prompt"]
            kept = (await client.get("/get_prompt")).json()["prompt"]
            assert "assistant%0A1" in kept, "what there was of the answer"
    assert ends == ["client_disconnected_before_streaming", "client_disconnected_while_streaming"]


async def test_the_console_remembers(make: Make) -> None:
    chat_stream = make()
    pieces = [piece async for piece in chat_stream.handle_console_input("Count to 5")]
    assert "".join(new for _, new, _ in pieces) == FIVE
    places = [place for _, _, place in pieces]
    assert (places[0], set(places[1:-1]), places[-1]) == ("begin", {"mid"}, "end")


@pytest.mark.parametrize(
    "arguments",
    [
        {"client_roles": {"user": {}}},
        {"token_sampler": object()},
        {"use_mock_response": True},
        {"repetition_penalty_method": "subtractive"},
        {"device": "cuda"},
        {"store": "off"},
        {"context_len": 100, "max_new_tokens": 100},
    ],
)
def test_arguments_without_a_meaning_are_refused_by_name(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        ChatStream(model=model, tokenizer=tokenizer, **arguments)
    with pytest.raises(TypeError, match="no argument colour"):
        ChatStream(model=model, tokenizer=tokenizer, colour=1)  # type: ignore[call-arg]


def test_apis_that_are_not_there_are_refused(make: Make) -> None:
    chat_stream = make()
    for opts in ({"include": ["nothing"]}, {"all": True, "exclude": []}, {"webui_index": 1}):
        with pytest.raises(ValueError, match=r"nothing|give one|page"):
            chat_stream.append_apis(Starlette(), opts)


def test_replacements_wait_for_their_end() -> None:
    pairs = [("<NL>", "\n"), ("ab", "c")]
    assert replaced("x<N", pairs, is_whole=False) == "x"
    assert replaced("x<NL>a", pairs, is_whole=False) == "x\n"
    assert replaced("x<NL>a", pairs, is_whole=True) == "x\na"
    assert replaced("xab<", pairs, is_whole=True) == "xc<"
