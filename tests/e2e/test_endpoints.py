"""The small endpoints of a real server, with the clients that people have; cancelling by id."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import IncompleteGenerationError

from .harness import RunningServer
from .sdk import async_openai_client, openai_client
from .wire import LONG, assert_dual_error, messages, open_stream

STORY = messages("Tell me a story")
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


def cancel(server: RunningServer, request_id: str, *, route: str = "chat/") -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{route}completions/{request_id}/cancel", timeout=30)


def test_openai_models(demo_server: RunningServer, endless_server: RunningServer) -> None:
    for server in (demo_server, endless_server):  # the name of the second one has slashes
        with openai_client(server.url) as client:
            (model,) = client.models.list()
            assert client.models.retrieve(model.id) == model
            assert model.model_dump()["max_model_len"] > 0
            with pytest.raises(openai.NotFoundError) as caught:
                client.models.retrieve("gpt/4")
            assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": messages("Count to 10")},
        {"messages": messages("Weather?"), "tools": [TOOL]},
        {"messages": messages("Weather?"), "tools": [TOOL], "tool_choice": "none"},
        {
            "messages": [*messages("Count"), {"role": "assistant", "content": "1, 2,"}],
            "continue_final_message": True,
        },
        {"messages": messages("Hi"), "add_generation_prompt": False},
    ],
    ids=["plain", "tools", "tools unused", "continued", "no head"],
)
def test_tokenize_is_the_prompt(fields: dict[str, Any], demo_server: RunningServer) -> None:
    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{demo_server.url}{path}", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    answer = post("/v1/chat/completions", **fields, max_tokens=1, return_token_ids=True)
    tokens = answer["prompt_token_ids"]
    told = post("/tokenize", **fields, return_token_strs=True)
    assert (told["tokens"], told["count"]) == (tokens, answer["usage"]["prompt_tokens"])
    assert len(told["token_strs"]) == len(tokens)
    prompt = post("/detokenize", tokens=tokens)["prompt"]
    assert fields["messages"][0]["content"] in prompt
    assert ("get_weather" in prompt) == (fields.get("tool_choice") is None and "tools" in fields)
    assert post("/tokenize", prompt=prompt, add_special_tokens=False)["tokens"] == tokens


def test_version_load_and_ping(demo_server: RunningServer) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as client:
        assert set(client.get("/version").json()) == {"version"}
        load = {"server_load": 0, "running": 0, "waiting": 0, "free_places": 160}
        assert client.get("/load").json() == load
        assert client.get("/ping").json() == client.post("/ping").json()
        assert client.get("/ping").json()["status"] == "ready"
        assert_dual_error(client.put("/ping"), status=405, code="method_not_allowed")


def test_openai_stream_is_cancelled_by_its_id(endless_server: RunningServer) -> None:
    with (
        openai_client(endless_server.url) as client,
        client.chat.completions.create(
            model="any", messages=STORY, max_tokens=LONG, n=3, stream=True
        ) as stream,
    ):
        first = next(stream)
        endless_server.wait_engine(num_running=3)
        path = f"/chat/completions/{first.id}/cancel"
        answer = client.post(path, cast_to=dict[str, Any])
        assert answer == {"id": first.id, "object": "request.cancelled", "cancelled": True}
        with pytest.raises(openai.APIError) as caught:
            for _ in stream:
                pass
        assert caught.value.code == "cancelled"
        endless_server.wait_idle()
        with pytest.raises(openai.NotFoundError):
            client.post(path, cast_to=dict[str, Any])


def test_openai_text_is_cancelled_by_its_id(endless_server: RunningServer) -> None:
    with (
        openai_client(endless_server.url) as client,
        client.completions.create(
            model="any", prompt="Once", max_tokens=LONG, stream=True
        ) as stream,
    ):
        answer = cancel(endless_server, next(stream).id, route="")
        assert answer.json()["cancelled"] is True
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "cancelled"


def test_hub_stream_is_cancelled_by_its_id(endless_server: RunningServer) -> None:
    with InferenceClient(base_url=endless_server.url) as client:
        stream: Any = client.chat.completions.create(messages=STORY, max_tokens=LONG, stream=True)
        assert cancel(endless_server, next(stream).id).status_code == 200
        with pytest.raises(IncompleteGenerationError):
            list(stream)


async def test_openai_whole_answer_is_cancelled_and_not_asked_for_again(
    endless_server: RunningServer,
) -> None:
    async with async_openai_client(endless_server.url, max_retries=2) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(
                model="any",
                messages=STORY,
                max_tokens=LONG,
                extra_headers={"x-request-id": "mine"},
            )
        )
        await asyncio.to_thread(endless_server.wait_engine, num_running=1)
        assert (await asyncio.to_thread(cancel, endless_server, "mine")).status_code == 200
        with pytest.raises(openai.APIStatusError) as caught:
            await asking
        assert caught.value.code == "cancelled"
        assert_dual_error(caught.value.response, status=499, code="cancelled")


def test_one_who_waits_is_cancelled_by_what_its_headers_say(endless_server: RunningServer) -> None:
    with ExitStack() as running:
        for _ in range(8):
            running.enter_context(open_stream(endless_server))
        endless_server.wait_engine(num_running=8, num_waiting=0)
        waiting = running.enter_context(open_stream(endless_server))
        endless_server.wait_engine(num_running=8, num_waiting=1)
        request_id = waiting.response.headers["x-request-id"]
        assert cancel(endless_server, request_id).status_code == 200
        (event,) = waiting.rest()
        assert json.loads(event)["error"]["code"] == "cancelled"
        endless_server.wait_open(8)
        endless_server.wait_engine(num_running=8, num_waiting=0)
        assert_dual_error(cancel(endless_server, request_id), status=404, code="request_not_found")
