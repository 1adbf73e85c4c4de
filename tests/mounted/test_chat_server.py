"""The server inside a FastAPI application: every route, its streams, its limits, its lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, OpenAI, RateLimitError
from starlette.testclient import TestClient
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millstream import ChatServer
from millstream.errors import StartupError
from millstream.mounted.keywords import MountedLoadingSettings
from millstream.settings import Settings
from tests.embedded.conftest import our_threads
from tests.mounted.conftest import Make, served

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def url(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """An application with a route of its own, and the server at /llm."""
    chat = ChatServer(model, tokenizer, store="memory", served_model_name="tiny")
    app = FastAPI(lifespan=chat.lifespan)

    @app.get("/own")
    async def own() -> str:
        return "mine"

    app.mount("/llm", chat.app)
    with served(app) as url:
        yield url


def said(client: httpx.Client | TestClient, path: str) -> str:
    """What it answers to `HELLO`."""
    response = client.post(f"{path}/v1/chat/completions", json=HELLO)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


async def streamed(client: AsyncOpenAI, prompt: str) -> str:
    stream = await client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=8,
        stream=True,
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_every_route_is_below_the_mount(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/own").json() == "mine"
        assert client.get("/llm/health").json()["status"] == "ready"
        assert client.get("/llm/v1/models").json()["data"][0]["id"] == "tiny"
        assert "/llm/docs" in client.get("/llm/").text
        document = client.get("/llm/openapi.json").json()
        assert document["servers"] == [{"url": "/llm"}]
        assert "/v1/chat/completions" in document["paths"]
        missing = client.get("/llm/nothing")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
        begun = client.post("/llm/v1/sessions")
        assert "Path=/llm" in begun.headers["set-cookie"]
        assert client.get("/v1/models").status_code == 404


def test_eight_streams_at_a_time_are_what_each_is_alone(url: str) -> None:
    prompts = [f"Count to {number}" for number in range(3, 11)]

    async def ask() -> tuple[list[str], list[str]]:
        async with AsyncOpenAI(base_url=f"{url}/llm/v1", api_key="none", max_retries=0) as client:
            alone = [await streamed(client, prompt) for prompt in prompts]
            return alone, await asyncio.gather(*(streamed(client, each) for each in prompts))

    alone, together = asyncio.run(ask())
    assert together == alone
    assert len(set(alone)) > 2


def test_history_is_kept_below_the_mount(url: str) -> None:
    with OpenAI(base_url=f"{url}/llm/v1", api_key="none", max_retries=0) as client:
        first = client.responses.create(model="any", input="Count to 5", temperature=0)
        create = client.responses.create
        create(model="any", input="Hi", previous_response_id=first.id, max_output_tokens=4)
        assert client.responses.retrieve(first.id).output_text == first.output_text


def test_more_than_fits_is_refused(make: Make) -> None:
    chat = make(max_concurrent_requests=1, max_queue_size=0)
    app = FastAPI(lifespan=chat.lifespan)
    app.mount("/llm", chat.app)
    with (
        served(app) as url,
        OpenAI(base_url=f"{url}/llm/v1", api_key="none", max_retries=0) as client,
    ):
        create = client.completions.create
        endless = {"ignore_eos": True}
        with create(
            model="any", prompt="a", stream=True, max_tokens=1500, extra_body=endless
        ) as running:
            next(iter(running))
            with pytest.raises(RateLimitError) as refused:
                create(model="any", prompt="b", max_tokens=1)
        assert int(refused.value.response.headers["retry-after"]) > 0


def test_two_servers_in_one_application_share_nothing(make: Make) -> None:
    first, second = (make(served_model_name=name) for name in "ab")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for chat in (first, second):
                await stack.enter_async_context(chat.lifespan(app))
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/a", first.app)
    app.mount("/b", second.app)
    with TestClient(app) as client:
        assert said(client, "/a") == said(client, "/b")
        kept = client.post("/a/v1/responses", json={"input": "Hi", "model": "any"}).json()["id"]
        found = [client.get(f"/{at}/v1/responses/{kept}").status_code for at in "ab"]
        assert found == [200, 404]
        names = [client.get(f"/{at}/v1/models").json()["data"][0]["id"] for at in "ab"]
        assert names == ["a", "b"]


def test_a_lifespan_may_come_again_and_what_is_stored_is_still_there(
    make: Make, tmp_path: Path
) -> None:
    chat = make(store=str(tmp_path / "store.db"))
    threads = our_threads()
    with TestClient(chat.app) as client:  # the lifespan of an application that stands alone
        body = client.post("/v1/responses", json={"input": "Hi", "model": "any"}).json()
    assert our_threads() == threads
    with TestClient(chat.app) as client:
        assert client.get(f"/v1/responses/{body['id']}").json()["output"] == body["output"]
    after = TestClient(chat.app).get("/health")
    assert (after.status_code, after.json()["error"]["code"]) == (503, "engine_unavailable")


def test_a_websocket_of_starlettes_own_client(make: Make) -> None:
    chat = make()
    app = FastAPI(lifespan=chat.lifespan)
    app.mount("/llm", chat.app)
    with TestClient(app) as client, client.websocket_connect("/llm/ws") as socket:
        texts = {1: "", "two": ""}
        for identifier in texts:
            socket.send_json({"id": identifier, "text": "Hello"})
        open_ids = set(texts)
        while open_ids:
            frame = socket.receive_json()
            assert "error" not in frame, frame
            texts[frame["id"]] += frame["text"]
            if "finish_reason" in frame:
                open_ids.remove(frame["id"])
        assert texts[1]
        assert texts[1] == texts["two"] == said(client, "/llm")


def test_what_cannot_start_says_so_to_whoever_starts_it(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    damaged = tmp_path / "store.db"
    damaged.write_bytes(b"no database" * 1000)
    for settings in ({"kv_cache_memory": "1KiB"}, {"store": str(damaged)}):
        chat = ChatServer(model, tokenizer, **settings)  # type: ignore[arg-type]
        with pytest.raises(StartupError), TestClient(FastAPI(lifespan=chat.lifespan)):
            pass
    with pytest.raises(TypeError, match="port is of the server only"):
        ChatServer(model, tokenizer, port=1)  # type: ignore[call-arg]
    with pytest.raises(StartupError, match="max_queue_size"):
        ChatServer(model, tokenizer, max_queue_size=-1)
    with pytest.raises(StartupError, match="api_key"):
        ChatServer(model, tokenizer, api_key="k", owner=lambda connection: "me")


def test_every_setting_is_a_keyword_or_left_to_the_application() -> None:
    left = {"model_id", "host", "port", "root_path", "log_level", "engine_timeout"}
    left |= {
        "http_workers",
        "max_engine_restarts",
        "log_format",
        "otlp_traces_endpoint",
        "otlp_service_name",
    }
    left |= {"log_prompts"}
    left |= {"ssl_certfile", "ssl_keyfile", "ssl_keyfile_password"}
    assert set(MountedLoadingSettings.__annotations__) == set(Settings.model_fields) - left
