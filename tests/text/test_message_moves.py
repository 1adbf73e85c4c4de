"""Histories in another order or division, where a template reads them only so."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.errors import InvalidRequest
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.message_moves import merged, placed
from tests.text.test_template_shapes import AS_JSON, Template

ONE_CALL = (  # Llama 3.1
    "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('only supports single tool-calls at once') }}{% endif %}"
    "<call>{{ m.tool_calls[0].function | tojson }}\n{% else %}<{{ m.role }}>{{ m.content }}\n"
    "{% endif %}{% endfor %}"
)
FIRST_CALL = ONE_CALL.replace("m.tool_calls | length != 1", "false")  # gpt-oss
ALTERNATING = (  # Mistral v3
    "{% set ns = namespace(index=0) %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest if not (m.role == 'tool' or m.tool_calls) %}"
    "{% if (m.role == 'user') != (ns.index % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% set ns.index = ns.index + 1 %}"
    "{% endfor %}{% for m in rest %}{% if m.tool_calls %}<call>{{ m.tool_calls | tojson }}\n"
    "{% elif m.role == 'user' and loop.last and system is defined %}"
    "<user>{{ system + '//' + m.content }}\n{% else %}<{{ m.role }}>{{ m.content }}\n{% endif %}"
    "{% endfor %}"
)
USER = {"role": "user", "content": "weather?"}


def calls(*names: str, content: str | None = None, ids: bool = True) -> dict[str, Any]:
    made = [
        {"type": "function", "function": {"name": name, "arguments": "{}"}}
        | ({"id": f"call_{name}"} if ids else {})
        for name in names
    ]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(text: str, of: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": text} | ({"tool_call_id": f"call_{of}"} if of else {})


def lines(source: str, *messages: dict[str, Any]) -> list[str]:
    """What the template writes, a line for each message: what a call is called, or the text."""
    formatter = ChatFormatter(Template(source), Tokenizer.from_str(_TOKENIZER))
    text = formatter.render(messages)
    return [
        "+".join(name for name in "abc" if f'"name": "{name}"' in line)
        if line.startswith("<call>")
        else line
        for line in text.splitlines()
    ]


_TOKENIZER = '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'


@pytest.mark.parametrize("source", [ONE_CALL, FIRST_CALL])
def test_calls_come_one_by_one_with_their_results(source: str) -> None:
    results = [result("warm", "b"), result("cold", "a"), result("wet", "c")]
    expected = ["<user>weather?", "a", "<tool>cold", "b", "<tool>warm", "c", "<tool>wet"]
    assert lines(source, USER, calls("a", "b", "c"), *results) == expected
    # Without ids, the order says it; without some results, the others keep their calls.
    nameless = [result("cold"), result("warm"), result("wet")]
    assert lines(source, USER, calls("a", "b", "c", ids=False), *nameless) == expected
    assert lines(source, USER, calls("a", "b"), result("warm", "b"), USER) == [
        *("<user>weather?", "a", "b", "<tool>warm", "<user>weather?"),
    ]
    spare = lines(source, USER, calls("a", "b"), *results)
    assert spare == ["<user>weather?", "a", "<tool>cold", "b", "<tool>warm", "<tool>wet"]
    assert lines(source, USER, calls("a", "b", content="Both."), *results[:2])[1:3] == [
        *("<assistant>Both.", "a"),
    ]


def test_a_template_that_writes_several_calls_gets_them_together() -> None:
    written = lines(ALTERNATING, USER, calls("a", "b"), result("cold", "a"), result("warm", "b"))
    assert written == ["<user>weather?", "a+b", "<tool>cold", "<tool>warm"]
    formatter = ChatFormatter(Template(AS_JSON), Tokenizer.from_str(_TOKENIZER))
    text = formatter.render([USER, calls("a", "b"), result("cold", "a"), result("warm", "b")])
    assert text.index("a {}") < text.index("b {}") < text.index("cold") < text.index("warm")


def test_arguments_are_refused_by_the_place_that_the_client_knows() -> None:
    wrong = calls("a", "b")
    wrong["tool_calls"][1]["function"]["arguments"] = "[" * 2000 + "]" * 2000
    with pytest.raises(InvalidRequest) as caught:
        lines(ONE_CALL, USER, wrong, result("cold", "a"), result("warm", "b"))
    assert caught.value.param == "messages[1].tool_calls[1].function.arguments"


def test_a_system_text_stays_where_tools_have_answered() -> None:
    system = {"role": "system", "content": "Be kind."}
    assert lines(ALTERNATING, system, USER) == ["<user>Be kind.//weather?"]
    written = lines(ALTERNATING, system, USER, calls("a"), result("cold", "a"))
    assert written == ["<user>Be kind.", "", "weather?", "a", "<tool>cold"]


def test_text_beside_a_call_stays_where_roles_alternate() -> None:
    spoken = calls("a", content="Let me see.")
    assert lines(ALTERNATING, USER, spoken, result("cold", "a")) == [
        *("<user>weather?", "<assistant>Let me see.", "a", "<tool>cold"),
    ]
    answer = {"role": "assistant", "content": "It is cold."}
    assert lines(ALTERNATING, USER, spoken, result("cold", "a"), answer, USER) == [
        *("<user>weather?", "a", "<tool>cold", "<assistant>Let me see.", "", "It is cold."),
        "<user>weather?",
    ]


SYSTEM_FIRST = (  # Qwen3.5
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}\n{% endfor %}"
)
SYSTEM_LOST = (
    "{% for m in messages %}{% if m.role != 'system' or loop.first %}"
    "<{{ m.role }}>{{ m.content }}\n{% endif %}{% endfor %}"
)
ANY_ORDER = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"


def said(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


FIRST, LATE = said("system", "Be kind."), said("system", "Now brief.")
RAIN, MORE = said("assistant", "Rain."), said("user", "And?")


def test_messages_of_one_role_are_one_where_roles_alternate() -> None:
    assert lines(ALTERNATING, USER, MORE, RAIN, RAIN, USER) == [
        "<user>weather?",
        "",
        "And?",
        "<assistant>Rain.",
        "",
        "Rain.",
        "<user>weather?",
    ]
    assert lines(ANY_ORDER, USER, MORE) == ["<user>weather?", "<user>And?"]


def test_a_text_and_the_calls_behind_it_are_one_message() -> None:
    written = lines(ALTERNATING, USER, RAIN, calls("a", content="So."), result("cold", "a"), RAIN)
    assert written == lines(
        ALTERNATING, USER, calls("a", content="Rain.\n\nSo."), result("cold", "a"), RAIN
    )


@pytest.mark.parametrize("source", [SYSTEM_FIRST, SYSTEM_LOST])
def test_a_late_system_text_is_the_users_where_the_template_refuses_or_loses_it(
    source: str,
) -> None:
    assert lines(source, FIRST, USER, RAIN, LATE, MORE) == [
        "<system>Be kind.",
        "<user>weather?",
        "<assistant>Rain.",
        "<user>Now brief.",
        "<user>And?",
    ]
    assert lines(source, USER, LATE) == ["<user>weather?", "<user>Now brief."]
    assert lines(source, FIRST, LATE, USER) == [
        "<system>Be kind.",
        "",
        "Now brief.",
        "<user>weather?",
    ]


def test_a_late_system_text_is_part_of_a_turn_where_roles_alternate() -> None:
    assert lines(ALTERNATING, USER, RAIN, LATE, MORE)[2:] == ["<user>Now brief.", "", "And?"]
    assert lines(ALTERNATING, USER, LATE) == ["<user>weather?", "", "Now brief."]


def test_a_late_system_text_stays_where_the_template_reads_it() -> None:
    assert lines(ANY_ORDER, USER, LATE, FIRST) == [
        "<user>weather?",
        "<system>Now brief.",
        "<system>Be kind.",
    ]


def test_a_later_turn_leaves_the_earlier_ones_as_they_were() -> None:
    """What the prefix cache needs, whatever was merged or moved."""
    turn = [USER, LATE]
    for source in (ALTERNATING, SYSTEM_FIRST, SYSTEM_LOST, ANY_ORDER):
        written = lines(source, *turn)
        assert lines(source, *turn, RAIN)[: len(written)] == written


def test_messages_of_two_forms_are_one_of_parts() -> None:
    parts = [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]
    moved = merged(placed([USER, {"role": "user", "content": parts}]), {"user"})
    text = [{"type": "text", "text": "weather?"}]
    assert moved == [(0, 0, {"role": "user", "content": text + parts})]


LAST_IS_ASKED = ANY_ORDER + (
    "{% if messages[-1].role == 'system' %}{{ raise_exception('nobody asks') }}{% endif %}"
)


def test_a_late_system_text_may_be_refused_at_the_end_alone() -> None:
    assert lines(LAST_IS_ASKED, USER, LATE) == ["<user>weather?", "<user>Now brief."]


def test_the_arguments_of_a_joined_message_are_named_where_they_were_sent() -> None:
    broken = calls("a")
    broken["tool_calls"][0]["function"]["arguments"] = '{"a": "\\ud800"}'
    with pytest.raises(InvalidRequest) as refusal:
        lines(ALTERNATING, USER, RAIN, broken)
    assert refusal.value.param == "messages[2].tool_calls[0].function.arguments"
