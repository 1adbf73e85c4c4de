"""Conversations with tools on offer: calling the right one, using its result, or needing none."""

from __future__ import annotations

from typing import Any

from .base import Dialogue, Message, Source, assistant, normalise, user
from .lookups import Use
from .repeating import repeating
from .smalltalk import greeting
from .toolbox import any_use
from .unknown import unknown


def call_message(use: Use) -> Message:
    function = {"name": use.tool["function"]["name"], "arguments": use.arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function}],
    }


def _offer(src: Source, use: Use) -> list[dict[str, Any]]:
    """The tool that fits, among none to two others with other names."""
    tools = [use.tool]
    for _ in range(src.rng.choices((0, 1, 2), (4, 4, 2))[0]):
        other = any_use(src).tool
        if all(_subject(other) != _subject(tool) for tool in tools):
            tools.append(other)
    src.rng.shuffle(tools)
    return tools


def _subject(tool: dict[str, Any]) -> str:
    """What a tool is about, by its name: two tools about the same thing would be a riddle."""
    name = str(tool["function"]["name"])
    for subject in ("weather", "search", "time", "find"):
        if subject in name:
            return subject
    return name.split("_")[1 if name.count("_") else 0]


def tool_call(src: Source) -> Dialogue:
    use = any_use(src)
    messages = [user(use.request), call_message(use)]
    if src.chance(0.35):
        messages += [{"role": "tool", "content": use.result}, assistant(use.answer)]
    return Dialogue("tools", messages, _offer(src, use))


def tool_result(src: Source) -> Dialogue:
    use = any_use(src)
    messages = [
        user(use.request),
        call_message(use),
        {"role": "tool", "content": use.result},
        assistant(use.answer),
    ]
    return Dialogue("tool results", messages, [use.tool])


def _might_fit(tools: list[dict[str, Any]], prompt: str) -> bool:
    """Whether a prompt mentions what one of the tools is about."""
    words = set(normalise(prompt).split())
    return any(words & set(str(t["function"]["name"]).split("_")) for t in tools)


def no_tool_needed(src: Source) -> Dialogue:
    """Small talk and other tasks go on as usual, whatever tools are there."""
    while True:
        dialogue = src.rng.choices((greeting, repeating, unknown), (6, 2, 2))[0](src)
        tools = _offer(src, any_use(src))
        if not _might_fit(tools, str(dialogue.messages[0]["content"])):
            return Dialogue("tools unused", dialogue.messages, tools)
