"""Bodies as Codex CLI 0.171.0 sends them, with long texts cut short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.intake.responses.chat_of_response import ChatOfResponse, chat_of_response
from millstream.intake.responses.items import Item
from millstream.intake.responses.request import ResponseRequest, parse_response_request


def text(role: str, *texts: str) -> dict[str, Any]:
    parts = [{"type": "input_text", "text": said} for said in texts]
    return {"type": "message", "id": f"msg_{role}", "role": role, "content": parts}


SCHEMA = {
    "type": "object",
    "properties": {"cmd": {"type": "string"}},
    "required": ["cmd"],
    "additionalProperties": False,
}
EXEC = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command.",
    "strict": False,
    "parameters": SCHEMA,
}
CLOSE = {"type": "function", "name": "close_agent", "strict": False, "parameters": SCHEMA}
AGENTS = {
    "type": "namespace",
    "name": "multi_agent_v1",
    "description": "Helpers.",
    "tools": [CLOSE, {**CLOSE, "name": "spawn_agent", "description": "Starts one."}],
}
CODEX: dict[str, Any] = {
    "model": "millstream-demo",
    "stream": True,
    "input": [
        text("developer", "You are a coding agent."),
        text("developer", "<skills_instructions>", "<permissions instructions>"),
        text("user", "<environment_context>"),
        text("user", "Write hi.txt"),
    ],
    "tools": [EXEC, AGENTS, {"type": "web_search", "external_web_access": False}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0b1c",
    "client_metadata": {"session_id": "0b1c", "x-codex-turn-metadata": "{}"},
}
ANSWERED = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "A file."}],
        "encrypted_content": None,
    },
    {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "I write it."}],
    },
    {
        "type": "function_call",
        "status": "completed",
        "id": "fc_1",
        "name": "exec_command",
        "arguments": '{"cmd": "echo hi > hi.txt"}',
        "call_id": "call_1",
    },
]
OUTPUT = {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "code 0"}


def parsed(**fields: Any) -> ResponseRequest:
    return parse_response_request({"input": "Hi", **fields})


def chat_of(*, context: Sequence[Item] = (), **fields: Any) -> ChatOfResponse:
    """What a body comes to. context: earlier items."""
    request = parsed(**fields)
    return chat_of_response(request, request.items, context)


def messages(*, context: Any = (), **fields: Any) -> list[dict[str, Any]]:
    """The messages that a chat template gets for a body."""
    return [message.to_template() for message in chat_of(context=context, **fields).chat.messages]
