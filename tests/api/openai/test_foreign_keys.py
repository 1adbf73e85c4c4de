"""Keys that other programs leave in a history: taken where they were seen, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from millstream.api.openai.chat.body import ChatRequest
from millstream.api.openai.chat.body_checks import parse_chat_request
from millstream.api.openai.fields.foreign_keys import KEYS
from millstream.errors import InvalidRequest

API = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
USER = {"role": "user", "content": "hi"}
VALUES: tuple[Any, ...] = (None, {}, [], "x", {"a": [1]}, [{"type": "x"}])


def body(place: str, **keys: Any) -> dict[str, Any]:
    """A request with keys in one place."""

    def at(name: str) -> dict[str, Any]:
        return keys if name == place else {}

    function = {"name": "f", "arguments": "{}"} | at("call's function")
    call = {"id": "c", "type": "function", "function": function} | at("call")
    said = {"role": "assistant", "content": "Hi", "tool_calls": [call]} | at("message")
    part = {"type": "text", "text": "hi"} | at("part")
    tool = {"type": "function", "function": {"name": "f"} | at("tool and its function")}
    tool |= at("tool and its function")
    messages = [{"role": "user", "content": [part]}, said, USER]
    return {"messages": messages, "tools": [tool]}


def parts_of(request: ChatRequest, *reads: str) -> dict[str, Any]:
    """What the template would get, by place."""
    user, said, _ = (m.to_template(lambda name: name in reads) for m in request.messages)
    call = said["tool_calls"][0]
    (tool,) = request.tools_for_template(lambda name: name in reads)
    assert tool.items() >= {k: v for k, v in tool["function"].items() if k in reads}.items()
    return {
        "message": said,
        "part": user["content"][0],
        "call": call,
        "call's function": call["function"],
        "tool and its function": tool,
    }


@pytest.mark.parametrize(("place", "key"), [(p, k) for p in KEYS for k in KEYS[p].model_fields])
def test_a_key_is_taken_and_given_to_templates_that_name_it(place: str, key: str) -> None:
    for value in VALUES:
        request = parse_chat_request(body(place, **{key: value}))
        assert parts_of(request) == parts_of(parse_chat_request(body("nowhere")))
        given = parts_of(request, key)[place]
        assert given.get(key) == value


@pytest.mark.parametrize("place", KEYS)
def test_other_keys_are_refused_by_name(place: str) -> None:
    others = {key for keys in KEYS.values() for key in keys.model_fields} - KEYS[
        place
    ].model_fields.keys()
    for key in {"prefix", "unknown", *others} - {"id"}:
        with pytest.raises(InvalidRequest) as caught:
            parse_chat_request(body(place, **{key: "x"}))
        assert caught.value.param is not None
        assert caught.value.param.endswith(f".{key}")


def test_the_documented_table_is_the_one_in_the_code() -> None:
    table = API.split("| key | in | who sends it |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", table, re.M)
    documented = {(place, key) for key, places in rows for place in places.split(", ")}
    assert documented == {(place, key) for place in KEYS for key in KEYS[place].model_fields}


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"refusal": "I will not."}, "I will not."),
        ({"content": "Sorry.", "refusal": "I will not."}, "Sorry.\nI will not."),
        ({"content": "Sorry.", "refusal": ""}, "Sorry."),
        (
            {"content": [{"type": "refusal", "refusal": "No."}, {"type": "text", "text": "So."}]},
            [{"type": "text", "text": "No."}, {"type": "text", "text": "So."}],
        ),
        (
            {"content": [{"type": "text", "text": "So."}], "refusal": "No."},
            [{"type": "text", "text": "So."}, {"type": "text", "text": "No."}],
        ),
    ],
)
def test_a_refusal_is_what_the_assistant_said(said: dict[str, Any], content: Any) -> None:
    request = parse_chat_request({"messages": [USER, {"role": "assistant"} | said]})
    assert request.messages[1].to_template()["content"] == content


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "text"}, "text"),
        ({"type": "text", "text": None}, "text"),
        ({"type": "refusal"}, "refusal"),
        ({"type": "refusal", "text": "x"}, "refusal"),
        ({"type": "text", "text": "x", "refusal": "y"}, "refusal"),
        ({"type": "image_url", "image_url": {}}, "type"),
        ({"text": "x"}, "type"),
    ],
)
def test_a_part_that_is_no_text_is_refused_by_name(part: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat_request({"messages": [{"role": "assistant", "content": [part]}]})
    assert caught.value.param == f"messages[0].content[0].{path}"


def test_calls_and_results_of_old_clients_are_calls_and_results() -> None:
    called = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{"},
    }
    result = {"role": "function", "name": "f", "content": "2"}
    request = parse_chat_request({"messages": [USER, called, result]})
    _, said, told = (message.to_template() for message in request.messages)
    (call,) = said["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": "{"}
    assert told == {"role": "tool", "name": "f", "content": "2", "tool_call_id": call["id"]}
    assert not request.ends_in_assistant_text
