"""The blocks of a whole message, and what a message has cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic_core import from_json

from millstream.intake.responses.sealed_text import encode_reasoning
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import (
    Content,
    Delta,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
    merge,
)

SIGNATURE = "millstream"
"""Of thoughts that can be read; they are taken back with any."""


def blocks_of(
    deltas: Sequence[TextDelta], *, id_of: Callable[[int], str], hides_thoughts: bool
) -> list[dict[str, Any]]:
    """The blocks that deltas add up to. id_of: a call's id by its number."""
    blocks: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    parts = merge(_parts(deltas))
    for part in parts:
        match part:
            case Content(text) if text.strip() or len(parts) == 1:
                blocks.append(text_block(text))
            case Reasoning(text):
                signature = sealed(text) if hides_thoughts else SIGNATURE
                blocks.append(thinking_block("" if hides_thoughts else text, signature))
            case ToolCallStart(number, name):
                blocks.append(tool_use_block(id_of(number), name))
                arguments[number] = ""
            case ToolCallArguments(number, text):
                arguments[number] += text
            case _:
                pass  # white space between blocks
    calls = [block for block in blocks if block["type"] == "tool_use"]
    for block, text in zip(calls, arguments.values(), strict=True):
        block["input"] = _input(text)
    return blocks


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def thinking_block(thinking: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def tool_use_block(call_id: str, name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}


def sealed(thinking: str) -> str:
    """The signature of thoughts that are not shown, from which they can be read again."""
    return encode_reasoning(thinking)


def messages_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's usage in the words of this API."""
    return usage_of(
        num_prompt=usage["prompt_tokens"],
        num_cached=usage["prompt_tokens_details"]["cached_tokens"],
        num_generated=usage["completion_tokens"],
        num_thinking=usage["completion_tokens_details"]["reasoning_tokens"],
    )


def usage_of(
    *, num_prompt: int, num_cached: int, num_generated: int, num_thinking: int
) -> dict[str, Any]:
    """input_tokens are those of the prompt that had to be computed. No token costs more for being
    cached, so none is counted as one that was written into the cache."""
    return {
        "input_tokens": num_prompt - num_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": num_cached,
        "output_tokens": num_generated,
        "output_tokens_details": {"thinking_tokens": num_thinking},
        "service_tier": "standard",
    }


def _parts(deltas: Sequence[TextDelta]) -> Iterable[Delta]:
    for delta in deltas:
        yield from (Content(delta.text),) if delta.parts is None else delta.parts


def _input(arguments: str) -> dict[str, Any]:
    """What a call's arguments say. Of an answer that ended within them, what there is; a text that
    is no object, which models write if nothing holds them to JSON, as it is."""
    try:
        found = from_json(arguments or "{}", allow_partial=True)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": arguments}
