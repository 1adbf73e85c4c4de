"""What becomes of the bodies that Codex CLI sends."""

from __future__ import annotations

from millstream.intake.responses.tools import ToolOrigin
from tests.intake.responses.bodies import ANSWERED, CODEX, OUTPUT, chat_of, messages, parsed


def test_the_first_request_of_a_turn() -> None:
    request = parsed(**CODEX)
    made = chat_of(**CODEX)
    assert request.stream
    assert request.store is False
    assert messages(**CODEX) == [
        {
            "role": "system",
            "content": "You are a coding agent.\n\n"
            "<skills_instructions>\n<permissions instructions>",
        },
        {"role": "user", "content": "<environment_context>"},
        {"role": "user", "content": "Write hi.txt"},
    ]
    offered = made.chat.offered_tools
    assert [tool["function"]["name"] for tool in offered] == [
        "exec_command",
        "close_agent",
        "spawn_agent",
    ]
    assert offered[1]["function"]["description"] == "multi_agent_v1: Helpers."
    assert made.tools.origin("close_agent") == ToolOrigin(
        "function", "close_agent", "multi_agent_v1"
    )
    assert made.tools.origin("exec_command") == ToolOrigin("function", "exec_command")
    assert made.tools.origin("no_such_tool") == ToolOrigin("function", "no_such_tool")


def test_the_second_request_extends_the_messages_of_the_first() -> None:
    second = {**CODEX, "input": [*CODEX["input"], *ANSWERED, OUTPUT]}
    first = messages(**CODEX)
    assert messages(**second) == [
        *first,
        {
            "role": "assistant",
            "content": "I write it.",
            "reasoning_content": "A file.",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "call_1",
                    "function": {
                        "name": "exec_command",
                        "arguments": '{"cmd": "echo hi > hi.txt"}',
                    },
                }
            ],
        },
        {"role": "tool", "content": "code 0", "tool_call_id": "call_1"},
    ]


def test_a_response_that_is_continued_gives_the_same_messages() -> None:
    """Whether a client sends the history or names the response that ends it."""
    stateless = messages(**{**CODEX, "input": [*CODEX["input"], *ANSWERED, OUTPUT]})
    context = [*parsed(**CODEX).items, *parsed(input=ANSWERED).items]
    continued = {**CODEX, "input": [OUTPUT], "previous_response_id": "resp_1"}
    assert messages(**continued, context=context) == stateless


def test_the_request_for_a_summary_has_no_tools() -> None:
    history = [*CODEX["input"], *ANSWERED, OUTPUT]
    made = chat_of(**{**CODEX, "input": history, "tools": []})
    assert made.chat.offered_tools == []
    assert made.chat.messages[3].calls[0].function.name == "exec_command"
