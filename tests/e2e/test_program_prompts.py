"""What chat pages and agents send with a question, which the demo model answers all the same.

Each request has the shape of a program's own, with its texts and tools stood in for: about as long,
and at the same places.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .harness import RunningServer

INSTRUCTIONS = "You are an agent that helps with software. Look at the files first.\n" * 120
AGENTS = (
    "Agents for some tasks:\n" + "- one that reads many files, and tells what is in them\n" * 90
)
CONTEXT = "Today is Sunday, and the system is Linux. I work in the folder /home/someone/work.\n" * 5
BLOCK = 16
"""Tokens of a block of the prefix cache."""
COUNT, COUNTED = "Count to 10", "\n".join(map(str, range(1, 11)))
ADD, ADDED = "What is 3 plus 4?", "3 + 4 = 7."


def _tagged(name: str) -> str:
    return f"<{name}>\n{CONTEXT}</{name}>"


def _said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def _functions(count: int) -> list[dict[str, Any]]:
    path = {"type": "string", "description": CONTEXT}
    parameters = {"type": "object", "properties": {"path": path}, "required": ["path"]}
    return [
        {"name": f"read_{n}", "description": CONTEXT, "parameters": parameters}
        for n in range(count)
    ]


def _post(server: RunningServer, path: str, **body: Any) -> Any:
    body |= {"model": "any", "temperature": 0}
    response = httpx.post(f"{server.url}/v1/{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("before", "question", "tools"),
    [
        ([], "{}", 36),
        ([("system", INSTRUCTIONS)], "{}", 9),
        ([("system", INSTRUCTIONS)], '"{}"', 10),
        ([("system", INSTRUCTIONS), ("user", CONTEXT), ("assistant", "Thanks!")], "{}", 11),
    ],
    ids=["Open WebUI", "Continue", "opencode", "Qwen Code"],
)
def test_chat_completions(
    before: list[tuple[str, str]], question: str, tools: int, demo_server: RunningServer
) -> None:
    offered = [{"type": "function", "function": each} for each in _functions(tools)]
    said = _said(*before, ("user", question.format(COUNT)))
    first = _post(demo_server, "chat/completions", messages=said, tools=offered, max_tokens=8000)
    message, prompt = first["choices"][0]["message"], first["usage"]["prompt_tokens"]
    assert message["content"] == COUNTED
    said += [message, *_said(("user", question.format(ADD)))]
    second = _post(demo_server, "chat/completions", messages=said, tools=offered, max_tokens=8000)
    assert second["choices"][0]["message"]["content"] == ADDED
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert prompt - BLOCK < cached < second["usage"]["prompt_tokens"] < prompt + 100


def test_responses_of_codex(demo_server: RunningServer) -> None:
    tools = [{"type": "function", **each} for each in _functions(9)]
    said: list[Any] = _said(
        ("developer", INSTRUCTIONS),
        ("developer", AGENTS),
        ("user", _tagged("environment_context")),
        ("user", COUNT),
    )
    first = _post(demo_server, "responses", input=said, tools=tools, store=False)
    (message,) = first["output"]
    assert message["content"][0]["text"] == COUNTED
    said += [message, *_said(("user", ADD))]
    second = _post(demo_server, "responses", input=said, tools=tools, store=False)
    assert second["output"][0]["content"][0]["text"] == ADDED
    cached = second["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached > first["usage"]["input_tokens"] - BLOCK


def test_messages_of_claude_code(demo_server: RunningServer) -> None:
    tools = [
        {"name": each["name"], "description": CONTEXT, "input_schema": each["parameters"]}
        for each in _functions(24)
    ]
    reminder, question = (
        {"type": "text", "text": text} for text in (_tagged("system-reminder") + "\n\n", COUNT)
    )
    said: list[Any] = [{"role": "user", "content": [reminder, question]}]
    said += _said(("system", AGENTS))
    asked = {"system": INSTRUCTIONS, "tools": tools, "max_tokens": 32_000}
    asked |= {"thinking": {"type": "adaptive"}}
    first = _post(demo_server, "messages", messages=said, **asked)
    assert first["content"][-1]["text"] == COUNTED
    said += [{"role": "assistant", "content": first["content"]}, *_said(("user", ADD))]
    second = _post(demo_server, "messages", messages=said, **asked)
    assert second["content"][-1]["text"] == ADDED
    first, second = (answer["usage"] for answer in (first, second))
    prompt = first["input_tokens"] + first["cache_read_input_tokens"]
    assert second["cache_read_input_tokens"] > prompt - 2 * BLOCK
