"""The small endpoints: models, version, load, ping, and what is no route or no method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from tokenizers import Tokenizer

from millstream import __version__
from millstream.api.described.route import Operation
from millstream.api.openai.cancellation import CANCEL_CHAT, CANCEL_COMPLETION
from millstream.api.openai.models import LIST_MODELS, RETRIEVE_MODEL, Model, ModelList
from millstream.api.openai.tokenize.body import (
    CHAT_FIELDS,
    DetokenizeRequest,
    TokenizeText,
)
from millstream.api.openai.tokenize.endpoints import DETOKENIZE, TOKENIZE, Detokenized, Tokenized
from millstream.api.status.health import HEALTH, Health
from millstream.api.status.load import LOAD, PINGS, VERSION, Load
from millstream.api.status.probes import LIVE, READY
from millstream.errors import StartupError
from millstream.settings import Settings
from tests.api.conftest import Api, RecordingRunner, serve

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")


async def test_the_model_is_listed_and_found(api: Api) -> None:
    listed = TypeAdapter(ModelList).validate_json((await api.ask("GET", "/v1/models")).content)
    (model,) = listed["data"]
    assert (model["id"], model["root"], model["parent"]) == ("fake", "demo", None)
    assert model["max_model_len"] == api.engine.info.max_context
    assert model["max_output_tokens"] is None
    found = await api.ask("GET", "/v1/models/fake")
    assert TypeAdapter(Model).validate_json(found.content) == model


@pytest.mark.parametrize("path", ["org/model", "org%2Fmodel"])
async def test_names_of_models_may_have_slashes(path: str, byte_tokenizer: Tokenizer) -> None:
    settings = Settings(model_id="org/model")
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        response = await api.ask("GET", f"/v1/models/{path}")
        assert response.json()["id"] == "org/model"


@pytest.mark.parametrize("name", ["other", "fake/", "ake", "", "FAKE", "org/fake", "x" * 5000])
async def test_another_model_is_not_found(name: str, api: Api) -> None:
    response = await api.ask("GET", f"/v1/models/{name}")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert len(error["message"]) < 300


@pytest.mark.parametrize("name", ["given", None])
async def test_the_place_of_a_folder_is_not_told(
    name: str | None, tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    settings = Settings(model_id=str(tmp_path), served_model_name=name)
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        (model,) = (await api.ask("GET", "/v1/models")).json()["data"]
        assert model["id"] == model["root"] == (name or tmp_path.name)
        found = await api.ask("GET", f"/v1/models/{model['id']}")
        assert found.json() == model


async def test_while_the_model_loads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.engine._readiness, "info", None)
    model = (await api.ask("GET", "/v1/models/fake")).json()
    assert model["max_model_len"] is None
    assert (await api.ask("GET", "/load")).json()["free_places"] == 0
    for path, body in (("/tokenize", {"prompt": ""}), ("/detokenize", {"tokens": []})):
        response = await api.ask("POST", path, json=body)
        assert response.status_code == 503


async def test_version(api: Api) -> None:
    assert (await api.ask("GET", "/version")).json() == {"version": __version__}


async def test_load_counts_answers_and_free_places(api: Api) -> None:
    async def load() -> Load:
        return TypeAdapter(Load).validate_json((await api.ask("GET", "/load")).content)

    assert await load() == Load(server_load=0, running=0, waiting=0, free_places=6)
    streams = api.engine.open_many(5)
    assert await load() == Load(server_load=5, running=0, waiting=0, free_places=1)
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_ping_is_health(method: str, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    health, ping = await api.ask("GET", "/health"), await api.ask(method, "/ping")
    assert ping.status_code == health.status_code == 200
    assert TypeAdapter(Health).validate_json(ping.content)["status"].value == "ready"
    monkeypatch.setattr(api.engine._readiness, "info", None)
    ping = await api.ask(method, "/ping")
    assert (ping.status_code, ping.json()["status"]) == (503, "restarting")


async def test_probes_of_a_failed_engine(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    live = await api.ask("GET", "/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    monkeypatch.setattr(api.engine._readiness, "failure", StartupError("it cannot go on"))
    live, ready = [await api.ask("GET", f"/health/{each}") for each in ("live", "ready")]
    assert (live.status_code, live.json()) == (503, {"status": "failed"})
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")


DESCRIBED = [LIST_MODELS, RETRIEVE_MODEL, CANCEL_CHAT, CANCEL_COMPLETION, TOKENIZE, DETOKENIZE]
DESCRIBED += [HEALTH, *PINGS, LIVE, READY, VERSION, LOAD]


@pytest.mark.parametrize("operation", DESCRIBED, ids=lambda one: f"{one.method} {one.path}")
def test_the_page_names_each(operation: Operation) -> None:
    path = "/v1/models/{id}" if operation is RETRIEVE_MODEL else operation.path
    assert f"`{operation.method} {path}`" in PAGE


def test_the_page_names_the_fields_of_tokens() -> None:
    section = PAGE.split("### Tokens")[1].split("###")[0]
    fields = {*CHAT_FIELDS, *TokenizeText.model_fields, *DetokenizeRequest.model_fields}
    answers = {*Tokenized.__annotations__, *Detokenized.__annotations__}
    assert fields | answers <= set(re.findall(r"`([a-z_]+)`", section))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions/x/cancel", 405),
        ("DELETE", "/v1/models/fake", 405),
        ("GET", "/tokenize", 405),
        ("PUT", "/detokenize", 405),
        ("POST", "/version", 405),
        ("POST", "/load", 405),
        ("DELETE", "/ping", 405),
        ("POST", "/v1/chat/completions/x/y/cancel", 404),
        ("POST", "/v1/chat/completions//cancel", 404),
        ("POST", "/v1/tokenize", 404),
    ],
)
async def test_what_is_no_route_or_method(method: str, path: str, status: int, api: Api) -> None:
    response = await api.ask(method, path)
    assert response.status_code == status
    assert ("allow" in response.headers) == (status == 405)
    body = response.json()
    assert body["error_type"] == "validation"
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == {404: "not_found", 405: "method_not_allowed"}[status]
