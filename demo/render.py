"""Dialogues as training text: the chat template's output, cut where the model takes over.

The template itself can not say which parts the model wrote; this renders the same text in pieces
and marks them. The tests hold the two against each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .dialogues import Dialogue
from .tokenizer import END, START

Pieces = list[tuple[str, bool]]  # text, and whether the model is to learn to write it
Encoder = Callable[[list[str]], list[list[int]]]

_CALL_HINT = (
    'To call a tool, answer with <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>'
)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tools_text(tools: list[dict[str, Any]]) -> str:
    listed = "".join(_json(tool) + "\n" for tool in tools)
    return f"# Tools\n<tools>\n{listed}</tools>\n{_CALL_HINT}"


def _call_text(message: dict[str, Any]) -> str:
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return "\n".join(
        f'<tool_call>\n{{"name": {_json(c["name"])}, "arguments": {_json(c["arguments"])}}}'
        "\n</tool_call>"
        for c in calls
    )


def _assistant_pieces(message: dict[str, Any], *, last: bool, thinking: str) -> Pieces:
    """What the generation prompt gives, and what the model then adds up to its end mark."""
    given, written = f"{START}assistant\n", str(message["content"]) + _call_text(message)
    thought = message.get("reasoning_content")
    if thought and last:
        opening = "<think>\n"
        written = f"{thought}\n</think>\n\n{written}"
        given, written = (
            (given + opening, written) if thinking == "on" else (given, opening + written)
        )
    elif last and thinking == "off":
        given += "<think>\n\n</think>\n\n"
    return [(given, False), (written + END, True), ("\n", False)]


def render(dialogue: Dialogue) -> Pieces:
    """The dialogue's text in pieces, in order."""
    messages = dialogue.messages
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    parts = [
        part for part in (system, _tools_text(dialogue.tools) if dialogue.tools else "") if part
    ]
    pieces: Pieces = []
    if parts:
        pieces.append((f"{START}system\n" + "\n\n".join(parts) + f"{END}\n", False))
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            last = index == len(messages) - 1
            pieces += _assistant_pieces(message, last=last, thinking=dialogue.thinking)
        elif message["role"] == "tool":
            result = f"<tool_response>\n{message['content']}\n</tool_response>"
            pieces.append((f"{START}user\n{result}{END}\n", False))
        elif message["role"] == "user":
            pieces.append((f"{START}user\n{message['content']}{END}\n", False))
    return pieces


def encode(dialogues: list[Dialogue], encoder: Encoder) -> list[tuple[list[int], list[bool]]]:
    """Token ids of each dialogue, and for each token whether the model is to learn to write it."""
    rendered = [render(dialogue) for dialogue in dialogues]
    ids = iter(encoder([text for pieces in rendered for text, _ in pieces]))
    encoded = []
    for pieces in rendered:
        tokens: list[int] = []
        learned: list[bool] = []
        for _, written in pieces:
            piece = next(ids)
            tokens += piece
            learned += [written] * len(piece)
        encoded.append((tokens, learned))
    return encoded
