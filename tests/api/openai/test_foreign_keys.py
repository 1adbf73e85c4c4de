"""Keys that other programs leave in a history: taken where they were seen, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from millstream.errors import InvalidRequest
from millstream.intake.fields.foreign_keys import KEYS, NULL_KEYS
from millstream.intake.requests.chat import ChatRequest
from millstream.intake.requests.chat_checks import parse_chat_request

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
    nulls = {key for keys in NULL_KEYS.values() for key in keys.model_fields}
    own_fields = {"id", "index"} if place == "call" else set()
    for key in {"prefix", "unknown", *others, *nulls} - own_fields:
        with pytest.raises(InvalidRequest) as caught:
            parse_chat_request(body(place, **{key: "x"}))
        assert caught.value.param is not None
        assert caught.value.param.endswith(f".{key}")


@pytest.mark.parametrize(
    ("place", "key"), [(p, k) for p in NULL_KEYS for k in NULL_KEYS[p].model_fields]
)
def test_a_key_that_says_nothing_is_taken_as_null(place: str, key: str) -> None:
    request = parse_chat_request(body(place, **{key: None}))
    assert parts_of(request, key) == parts_of(parse_chat_request(body("nowhere")))


def test_the_documented_null_keys_are_those_in_the_code() -> None:
    text = API.split("Taken as null only: ")[1].split("\n")[0]
    documented = [
        (place, key)
        for place, keys in re.findall(r"in a (\w+) ((?:`\w+`(?:, )?)+)", text)
        for key in re.findall(r"\w+", keys)
    ]
    assert documented == [(p, k) for p in NULL_KEYS for k in NULL_KEYS[p].model_fields]


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
        ({"type": "output_text", "text": "", "thinking": "x"}, "thinking"),
        ({"type": "thinking"}, "thinking"),
        ({"type": "thinking", "text": "x"}, "thinking"),
        ({"type": "thinking", "thinking": [{"type": "image"}]}, "thinking[0].type"),
        ({"type": "reasoning", "reasoning": "x", "text": "y"}, "reasoning"),
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


@pytest.mark.parametrize(
    "said",
    [
        {"content": "So.", "thinking": "Hm."},
        {"content": "So.", "thinking": "Hm.", "reasoning": "Hm.", "reasoning_content": ""},
        {"content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}], "refusal": "So."},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "output_text", "text": "So."},
            ]
        },
        {"content": [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "So."}]},
        {"content": [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "So."}]},
    ],
)
def test_thoughts_are_reasoning_wherever_they_were_written(said: dict[str, Any]) -> None:
    request = parse_chat_request({"messages": [USER, {"role": "assistant"} | said, USER]})
    told = request.messages[1].to_template()
    content = "So." if isinstance(said["content"], str) else [{"type": "text", "text": "So."}]
    assert told == {"role": "assistant", "content": content, "reasoning_content": "Hm."}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "x", "thinking": "a", "reasoning": "b"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "a"}],
            "reasoning_content": "b",
        },
        {"role": "user", "content": [{"type": "reasoning", "text": "a"}]},
        {"role": "user", "content": "x", "thinking": "a"},
    ],
)
def test_thoughts_that_differ_or_are_another_s_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat_request({"messages": [message, USER]})
    assert caught.value.param == "messages[0].reasoning_content"


def test_texts_are_texts_under_the_names_of_the_responses_api() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]
    request = parse_chat_request({"messages": [{"role": "user", "content": parts}]})
    texts = [{"type": "text", "text": text} for text in "ab"]
    assert request.messages[0].to_template()["content"] == texts


@pytest.mark.parametrize("kind", [{}, {"type": None}, {"type": ""}, {"type": "function"}])
@pytest.mark.parametrize("name", [{}, {"id": None}, {"id": ""}])
def test_a_call_as_its_deltas_were_joined_is_a_call(
    kind: dict[str, Any], name: dict[str, Any]
) -> None:
    call = {"function": {"name": "f", "index": 0}, "index": 0} | kind | name
    request = parse_chat_request({"messages": [{"role": "assistant", "tool_calls": [call]}, USER]})
    (told,) = request.messages[0].to_template()["tool_calls"]
    assert told == {"type": "function", "function": {"name": "f", "arguments": ""}}
