"""POST /v1/responses/input_tokens and /v1/responses/compact."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import CompactedResponse

from tests.api.openai.responses.conftest import Desk


async def count(desk: Desk, **body: Any) -> int:
    response = await desk.ask("POST", "/v1/responses/input_tokens", json=body)
    assert response.status_code == 200, response.text
    number: int = response.json()["input_tokens"]
    return number


async def compact(desk: Desk, **body: Any) -> Any:
    response = await desk.ask("POST", "/v1/responses/compact", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_count_is_what_the_response_then_costs(desk: Desk) -> None:
    desk.say("First", "Second")
    first = await desk.make(input="One", instructions="Be brief")
    assert (
        await count(desk, input="One", instructions="Be brief") == (first["usage"]["input_tokens"])
    )
    follows = {"input": "Two", "previous_response_id": first["id"]}
    number = await count(desk, **follows)
    second = await desk.make(**follows)
    assert number == second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


@pytest.mark.parametrize("path", ["input_tokens", "compact"])
async def test_fields_that_change_no_prompt_are_not_taken(desk: Desk, path: str) -> None:
    response = await desk.ask(
        "POST", f"/v1/responses/{path}", json={"input": "x", "temperature": 0.5}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "temperature"


async def test_a_conversation_made_shorter_is_told_to_the_model_that_goes_on(desk: Desk) -> None:
    desk.say("<think>\nhm\n</think>\nFirst", "They said First.", "Next")
    first = await desk.make(input="One")
    made = await compact(desk, previous_response_id=first["id"], input="Two")
    assert CompactedResponse.construct(**made).output[-1].type == "compaction"
    kinds = [item["type"] for item in made["output"]]
    assert kinds == ["message", "message", "compaction"]
    said = [message["role"] for message in desk.shown]
    assert said == ["user", "assistant", "user", "user"]
    assert "summary" in desk.shown[-1]["content"]
    await desk.make(input=[*made["output"], {"role": "user", "content": "Go on"}])
    contents = [message["content"] for message in desk.shown]
    assert (contents[0], contents[1], contents[3]) == ("One", "Two", "Go on")
    assert contents[2].endswith("They said First.")


async def test_a_model_that_writes_no_summary_is_a_failure(desk: Desk) -> None:
    desk.say("<think>\nhm\n</think>\n ")
    response = await desk.ask("POST", "/v1/responses/compact", json={"input": "x"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "generation_failed"
