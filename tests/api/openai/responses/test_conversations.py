"""/v1/conversations, and responses that are made in one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai.types.conversations import Conversation, ConversationItem
from pydantic import TypeAdapter

from tests.api.openai.responses.conftest import KEYS, Desk

OFFICIAL: TypeAdapter[Any] = TypeAdapter(ConversationItem)
TWO_KEYS = {"api_key": ["first", "second"]}
PATH = "/v1/conversations"


async def ask(desk: Desk, method: str, path: str, status: int = 200, **options: Any) -> Any:
    response = await desk.ask(method, f"{PATH}{path}", **options)
    assert response.status_code == status, response.text
    return response.json()


async def create(desk: Desk, **body: Any) -> str:
    made = await ask(desk, "POST", "", json=body)
    Conversation.model_validate(made)
    identifier: str = made["id"]
    return identifier


def message(text: str, role: str = "user") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


async def contents(desk: Desk, identifier: str) -> list[str]:
    listed = await ask(desk, "GET", f"/{identifier}/items?order=asc&limit=100")
    for item in listed["data"]:
        OFFICIAL.validate_python(item)
    return [item["content"][0]["text"] for item in listed["data"]]


async def test_a_conversation_is_made_changed_and_deleted(desk: Desk) -> None:
    identifier = await create(desk, items=[message("Hi")], metadata={"a": "1"})
    assert (await ask(desk, "GET", f"/{identifier}"))["metadata"] == {"a": "1"}
    changed = await ask(desk, "POST", f"/{identifier}", json={"metadata": {"b": "2"}})
    assert changed["metadata"] == {"b": "2"}
    deleted = await ask(desk, "DELETE", f"/{identifier}")
    assert deleted == {"id": identifier, "object": "conversation.deleted", "deleted": True}
    await ask(desk, "GET", f"/{identifier}", 404)
    await ask(desk, "GET", f"/{identifier}/items", 404)
    await ask(desk, "DELETE", f"/{identifier}", 404)


async def test_items_are_added_listed_and_deleted(desk: Desk) -> None:
    identifier = await create(desk)
    added = await ask(
        desk, "POST", f"/{identifier}/items", json={"items": [message("a"), message("b")]}
    )
    assert [item["content"][0]["text"] for item in added["data"]] == ["a", "b"]
    await ask(desk, "POST", f"/{identifier}/items", json={"items": [message("c", "assistant")]})
    assert await contents(desk, identifier) == ["a", "b", "c"]
    newest = await ask(desk, "GET", f"/{identifier}/items?limit=2")
    assert [item["content"][0]["text"] for item in newest["data"]] == ["c", "b"]
    assert newest["has_more"] is True
    rest = await ask(desk, "GET", f"/{identifier}/items?limit=2&after={newest['last_id']}")
    assert [item["content"][0]["text"] for item in rest["data"]] == ["a"]
    assert rest["has_more"] is False
    first = added["data"][0]["id"]
    found = await ask(desk, "GET", f"/{identifier}/items/{first}")
    assert found == added["data"][0]
    await ask(desk, "DELETE", f"/{identifier}/items/{first}")
    assert await contents(desk, identifier) == ["b", "c"]
    await ask(desk, "GET", f"/{identifier}/items/{first}", 404)
    await ask(desk, "DELETE", f"/{identifier}/items/{first}", 404)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", {"items": [message("x")] * 21}, "items"),
        ("", {"items": [{"type": "message", "role": "user"}]}, "items[0].content"),
        ("", {"metadata": {"a": 1}}, "metadata"),
        ("", {"name": "x"}, "name"),
        ("/{}/items", {"items": []}, "items"),
        ("/{}/items", {}, "items"),
        ("/{}", {}, "metadata"),
        ("/{}/items?limit=0", None, "limit"),
        ("/{}/items?order=up", None, "order"),
        ("/{}/items?after=msg_unknown", None, "after"),
    ],
)
async def test_what_is_wrong_is_named(desk: Desk, path: str, body: Any, param: str) -> None:
    identifier = await create(desk)
    method = "GET" if body is None else "POST"
    options = {} if body is None else {"json": body}
    refused = await ask(desk, method, path.format(identifier), 400, **options)
    assert refused["error"]["param"] == param


async def test_a_response_goes_on_in_its_conversation(desk: Desk) -> None:
    identifier = await create(desk, items=[message("Zero")])
    desk.say("First", "Second")
    first = await desk.make(input="One", conversation=identifier)
    assert first["conversation"] == {"id": identifier}
    second = await desk.make(input="Two", conversation={"id": identifier})
    assert [said["content"] for said in desk.shown] == ["Zero", "One", "First", "Two"]
    assert await contents(desk, identifier) == ["Zero", "One", "First", "Two", "Second"]
    path = f"/v1/responses/{second['id']}"
    asked = await desk.get(f"{path}/input_items")
    assert [item["content"][0]["text"] for item in asked["data"]] == ["Two"]
    await desk.ask("DELETE", path)
    assert await contents(desk, identifier) == ["Zero", "One", "First", "Two", "Second"]
    await ask(desk, "DELETE", f"/{identifier}")
    assert (await desk.ask("GET", f"/v1/responses/{first['id']}")).status_code == 404


async def test_one_response_at_a_time_is_made_in_a_conversation(desk: Desk) -> None:
    identifier = await create(desk)
    desk.say("Hello")
    with desk.talk.speaker.silent():
        begun = await desk.make(input="One", conversation=identifier, background=True)
        refused = await desk.post(input="Two", conversation=identifier)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "conversation_locked"
    await desk.ask("POST", f"/v1/responses/{begun['id']}/cancel")
    await asyncio.gather(*(run.settled() for run in desk.runs))
    desk.say("Second")
    second = await desk.make(input="Two", conversation=identifier)
    assert second["output"][0]["content"][0]["text"] == "Second"


async def test_a_response_in_a_conversation_is_kept(desk: Desk) -> None:
    identifier = await create(desk)
    assert await desk.refused(conversation=identifier, store=False) == "store"
    assert await desk.refused(status=404, conversation="conv_unknown") == "conversation"
    both = {"conversation": identifier, "previous_response_id": "resp_1"}
    assert await desk.refused(**both) == "previous_response_id"


async def test_somebody_elses_conversation_is_not_there(desk: Desk) -> None:
    async def as_user(name: str, method: str, path: str, **options: Any) -> Any:
        return await desk.ask(
            method, f"{PATH}{path}", headers=KEYS[name], settings=TWO_KEYS, **options
        )

    made = await as_user("one", "POST", "", json={"items": [message("secret")]})
    identifier = made.json()["id"]
    listed = await as_user("one", "GET", f"/{identifier}/items")
    item = listed.json()["data"][0]["id"]
    for method, path, options in (
        ("GET", f"/{identifier}", {}),
        ("POST", f"/{identifier}", {"json": {"metadata": {}}}),
        ("GET", f"/{identifier}/items", {}),
        ("POST", f"/{identifier}/items", {"json": {"items": [message("x")]}}),
        ("GET", f"/{identifier}/items/{item}", {}),
        ("DELETE", f"/{identifier}/items/{item}", {}),
        ("DELETE", f"/{identifier}", {}),
    ):
        response = await as_user("other", method, path, **options)
        assert response.status_code == 404, (method, path)
        assert "secret" not in response.text
    reference = {"type": "item_reference", "id": item}
    for field in ({"conversation": identifier}, {"input": [reference]}):
        refused = await desk.post(headers=KEYS["other"], settings=TWO_KEYS, **field)
        assert refused.status_code == 404
    assert (await as_user("one", "GET", f"/{identifier}/items")).json() == listed.json()
