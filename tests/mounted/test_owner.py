"""Whose a request is, as the application around the server says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.testclient import TestClient, WebSocketDenialResponse

from tests.mounted.conftest import Make

USERS = {"ada", "bob"}


def known(connection: HTTPConnection) -> str | None:
    """A user whom the application's own middleware has found."""
    name: str = connection.state.user
    if name == "mallory":
        raise HTTPException(403, "not here")
    if name == "seven":
        return 7  # type: ignore[return-value]
    return name if name in USERS else None


async def known_later(connection: HTTPConnection) -> str | None:
    return known(connection)


@pytest.fixture(params=[known, known_later])
def client(
    make: Make,
    request: pytest.FixtureRequest,
) -> Iterator[TestClient]:
    owner: Callable[[HTTPConnection], str | Awaitable[str | None] | None] = request.param
    chat = make(owner=owner)
    app = FastAPI(lifespan=chat.lifespan)

    @app.middleware("http")
    async def authenticate(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if (user := request.headers.get("x-user")) is not None:
            request.state.user = user
        request.state.tenant = "a name of theirs"
        return await call_next(request)

    app.mount("/llm", chat.app)
    with TestClient(app) as client:
        yield client


def test_what_one_owner_stores_is_not_there_for_another(client: TestClient) -> None:
    ada, bob = {"x-user": "ada"}, {"x-user": "bob"}
    made = client.post("/llm/v1/responses", json={"input": "Hi", "model": "m"}, headers=ada).json()
    path = f"/llm/v1/responses/{made['id']}"
    statuses = [client.get(path, headers=each).status_code for each in (ada, bob, {})]
    assert statuses == [200, 404, 401]


@pytest.mark.parametrize(
    ("user", "status", "message"),
    [
        ("eve", 401, "it is not known whose this request is"),
        ("", 401, "it is not known whose this request is"),
        ("seven", 401, "it is not known whose this request is"),
        (None, 401, "it is not known whose this request is"),
        ("mallory", 403, "not here"),
    ],
)
def test_nobody_else_gets_in(
    client: TestClient, user: str | None, status: int, message: str
) -> None:
    headers = {} if user is None else {"x-user": user}
    refused = client.get("/llm/v1/models", headers=headers)
    assert (refused.status_code, refused.json()["error"]["message"]) == (status, message)
    assert client.get("/llm/health", headers=headers).status_code == 200


def test_a_socket_has_an_owner_too(client: TestClient) -> None:
    # The application's middleware sees no sockets, so nobody is known.
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/llm/v1/responses"),
    ):
        pass
    assert refused.value.status_code == 401


def test_sessions_are_not_begun_where_owners_are_told(client: TestClient) -> None:
    refused = client.post("/llm/v1/sessions", headers={"x-user": "ada"})
    assert refused.status_code == 400
    assert "set-cookie" not in refused.headers
