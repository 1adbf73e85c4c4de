"""The API document: every route, true of every answer, valid in itself. And its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import ValidationError
from starlette.routing import Route

from millstream.api.context import ServerContext
from millstream.api.described.document import document
from millstream.api.described.document_endpoint import with_document
from millstream.api.described.route import DescribedRoute
from millstream.api.openai.chat.endpoint import CHAT
from millstream.api.routes import all_routes
from millstream.intake.fields.unsupported import UNSUPPORTED
from millstream.intake.requests.chat import ChatRequest
from millstream.settings import Settings
from tests.api.described_transport import check_answer, check_events
from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

SOURCES = Path(__file__).parents[3] / "clients" / "page" / "src"


def operations(found: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    }


async def test_it_has_every_route_and_no_other(serve: Serve, context: ServerContext) -> None:
    routes = with_document(all_routes(context), context.settings)
    assert all(type(route) is DescribedRoute for route in routes)
    served = set()
    for route in routes:
        assert isinstance(route, Route)
        path = re.sub(r"{(\w+):path}", r"{\1}", route.path)
        served |= {(method, path) for method in (route.methods or set()) - {"HEAD"}}
    found = (await serve().get("/openapi.json")).json()
    assert set(operations(found)) == served
    identifiers = [operation["operationId"] for operation in operations(found).values()]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize("settings", [{}, {"api_key": "sesame", "root_path": "/llm"}], ids=str)
async def test_it_is_valid(serve: Serve, settings: dict[str, Any]) -> None:
    headers = {"Authorization": "Bearer sesame"}
    response = await serve(**settings).get("/openapi.json", headers=headers)
    assert response.status_code == 200
    found = response.json()
    validate(found)
    assert found["servers"] == [{"url": settings.get("root_path", "/")}]
    needs = {key for key, operation in operations(found).items() if "security" in operation}
    if settings:
        scheme = found["components"]["securitySchemes"]["ApiKey"]
        assert scheme == {"type": "http", "scheme": "bearer"}
        for (method, path), operation in operations(found).items():
            assert ("401" in operation["responses"]) == ((method, path) in needs)
        assert ("POST", "/v1/chat/completions") in needs
        assert ("GET", "/health") not in needs
    else:
        assert not needs
        assert "securitySchemes" not in found["components"]
    assert "sesame" not in response.text


def test_objects_are_closed(context: ServerContext) -> None:
    """What is not in the document is neither accepted nor sent."""
    found = document(with_document(all_routes(context), context.settings), Settings())
    for name, schema in found["components"]["schemas"].items():
        if "properties" in schema:
            assert schema["additionalProperties"] is False, name


def test_chat_requests_are_described(context: ServerContext) -> None:
    found = document(with_document(all_routes(context), context.settings), Settings())
    schema = found["components"]["schemas"]["ChatRequest"]
    assert set(schema["properties"]) == set(ChatRequest.model_fields)
    assert UNSUPPORTED.isdisjoint(schema["properties"])
    assert schema["required"] == ["messages"]
    whole = {"$ref": "#/components/schemas/ChatRequest", "components": found["components"]}
    validator = Draft202012Validator(whole)
    messages = [{"role": "user", "content": "Hi"}]
    assert validator.is_valid({"messages": messages, "temperature": 0.5, "stop": ["a"]})
    for wrong in (
        {"temperature": 3},
        {"temperature": "1"},
        {"echo": True},
        {"stop": [""]},
        {"n": 0},
        {"messages": []},
        {"messages": [{"role": "user", "content": "Hi", "color": "red"}]},
    ):
        assert not validator.is_valid({"messages": messages} | wrong), wrong


@pytest.mark.parametrize(
    ("status", "media", "content"),
    [
        (200, "application/json", '{"id": "x"}'),
        (200, "text/plain", "{}"),
        (418, "application/json", '{"error": {}, "error_type": "x"}'),
        (400, "application/json", '{"error": {"message": "x"}, "error_type": "x"}'),
        (400, "text/plain", "no"),
        (401, "application/json", "{}"),
    ],
)
def test_the_check_of_answers_can_fail(status: int, media: str, content: str) -> None:
    response = httpx.Response(status, headers={"Content-Type": media}, text=content)
    with pytest.raises((AssertionError, ValidationError)):
        check_answer(CHAT, response, Settings())


@pytest.mark.parametrize(
    "text", ["data: {}\n\ndata: [DONE]\n\n", "data: [DONE]", "data: {}\n\n", "data:[DONE]\n\n"]
)
def test_the_check_of_events_can_fail(text: str) -> None:
    with pytest.raises((AssertionError, ValidationError)):
        check_events(text, CHAT.answers[200]["text/event-stream"])


async def test_the_page_asks_nothing_of_others(serve: Serve) -> None:
    client = serve(api_key="sesame")
    page = await client.get("/docs")
    assert page.status_code == 200
    for name in re.findall(r'(?:src|href)="(page/docs[^"]+)"', page.text):
        text = (await client.get(f"/{name}")).text
        addresses = re.findall(r"https?://[\w.]*|@import|url\(", text)
        assert set(addresses) <= {"http://www.w3.org"}, "something from outside"


def test_the_page_makes_no_markup_of_texts() -> None:
    sources = [*SOURCES.glob("docs/*.ts*"), SOURCES / "docs.tsx"]
    assert len(sources) > 5
    for source in sources:
        text = source.read_text(encoding="utf-8")
        markup = r"innerHTML|InnerHTML|outerHTML|insertAdjacent|document\.write|eval\("
        assert not re.search(markup, text), source.name
        assert not re.search(r"\sstyle=|javascript:", text), "the policy would not run it"
