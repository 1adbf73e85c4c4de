"""What clients send is logged where the operator asks for it, and nowhere else."""

from __future__ import annotations

import json
import logging

import pytest

from tests.api.guards.test_edge import CHAT
from tests.api.serving import Serve, context, serve

__all__ = ["context", "serve"]

SECRET = "7"  # of the letters that the fake model has
ASKED = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 2}


@pytest.mark.parametrize("is_asked", [False, True])
async def test_prompts_are_logged_where_that_is_asked_for(
    is_asked: bool, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "millstream")
    client = serve(log_prompts=is_asked)
    for body in (ASKED, ASKED | {"n": 0}):
        await client.post(CHAT, json=body, headers={"x-request-id": "mine"})
    await client.post("/tokenize", json={"prompt": SECRET})
    told = [record for record in caplog.records if record.name == "millstream.prompts"]
    assert len(told) == (2 if is_asked else 0), "nothing of what asks for no answer"
    for record in told:
        assert record.fields["id"] == "mine"  # type: ignore[attr-defined]
        body = record.fields["body"]  # type: ignore[attr-defined]
        assert body["messages"] == ASKED["messages"]
        assert record.getMessage() == f"id=mine body={json.dumps(body)}"
