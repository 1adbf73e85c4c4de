"""Where the server is mounted: paths with and without the prefix of a proxy."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response
from starlette.routing import Mount
from starlette.testclient import TestClient

from tests.mounted.conftest import Make


def test_a_proxy_may_take_its_prefix_away_or_not(make: Make) -> None:
    chat = make()
    app = FastAPI(lifespan=chat.lifespan)
    app.mount("/llm", chat.app)
    with TestClient(app, root_path="/proxy") as client:
        for path in ("/llm", "/proxy/llm"):
            document = client.get(f"{path}/openapi.json").json()
            assert document["servers"] == [{"url": "/proxy/llm"}]
            assert client.get(f"{path}/v1/nothing").status_code == 404


def test_the_path_of_a_mount_may_say_anything(make: Make) -> None:
    chat = make()
    app = Starlette(lifespan=chat.lifespan, routes=[Mount("/{tenant}/llm", chat.app)])
    with TestClient(app) as client:
        for number in range(20):
            assert client.get(f"/t{number}/llm/v1/models").status_code == 200
        page = client.get("/<script>;x/llm/", headers={"Accept": "text/html"}).text
        assert "<script>" not in page
        assert "/%3Cscript%3E%3Bx/llm/page/chat.js" in page
        assert client.get("/%3Cscript%3E%3Bx/llm/page/chat.js").status_code == 200
        cookie = client.post("/a;x/llm/v1/sessions").headers["set-cookie"]
        assert "Path=/a%3Bx/llm;" in cookie


def test_names_that_the_application_gives_to_its_requests_say_nothing_here(make: Make) -> None:
    chat = make()
    app = FastAPI(lifespan=chat.lifespan)

    @app.middleware("http")
    async def name(request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.state.tenant = request.state.request_id = "a name of theirs"
        return await call_next(request)

    app.mount("/llm", chat.app)
    with TestClient(app) as client:
        assert client.post("/llm/v1/sessions").json()["is_new"] is True
