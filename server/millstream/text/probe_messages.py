"""Messages with texts that nobody writes, to see which of them a chat template shows."""

from __future__ import annotations

from typing import Any

from millstream.text.message_moves import Message

SYSTEM, USER, SECOND, ASSISTANT = "probesystem", "probeuser", "probesecond", "probeassistant"
THIRD = "probethird"
NAME, VALUE, RESULT, THOUGHT = (
    "probe_call",
    "probevalue",
    "proberesult",
    "probethought",
)
ARGUMENTS = f'{{"probekey": "{VALUE}"}}'
CALL = {
    "id": "call_0123456789abcdef",
    "type": "function",
    "function": {"name": NAME, "arguments": ARGUMENTS},
}
SECOND_VALUE, SECOND_RESULT = "probeothervalue", "probeotherresult"
SECOND_CALL = {
    "id": "call_fedcba9876543210",
    "type": "function",
    "function": {"name": NAME, "arguments": f'{{"probekey": "{SECOND_VALUE}"}}'},
}
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"probekey": {"type": "string"}}},
    },
}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def system(content: Any) -> Message:
    return {"role": "system", "content": content}


def assistant(content: Any, *, calls: int = 0) -> Message:
    message: Message = {"role": "assistant", "content": content}
    return message | {"tool_calls": [CALL, SECOND_CALL][:calls]} if calls else message


def result(content: Any, *, call: int = 0) -> Message:
    return {"role": "tool", "content": content, "tool_call_id": [CALL, SECOND_CALL][call]["id"]}
