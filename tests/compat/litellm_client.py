"""Conversations through LiteLLM: reads them as JSON from standard input, writes what came of them.

It runs in an environment of its own, since LiteLLM and other clients want different versions of
what they share. An answer goes back into the history as LiteLLM hands it out; tools are answered.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True


def ask(messages: list[Any], case: dict[str, Any]) -> Any:
    """The message that LiteLLM makes of an answer, also of a streamed one."""
    answer = litellm.completion(
        messages=messages,
        model=case["model"],
        api_base=case["api_base"],
        api_key=case["api_key"],
        stream=case["stream"],
        temperature=0,
        max_tokens=100,
        **case["options"],
    )
    if case["stream"]:
        answer = litellm.stream_chunk_builder(list(answer), messages=messages)
    return answer.choices[0].message


def converse(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Every message of the assistant. A call is answered with the case's `result`."""
    messages: list[Any] = []
    answers = []
    for said in case["says"]:
        messages.append({"role": "user", "content": said})
        while True:
            message = ask(messages, case)
            answers.append(message.model_dump())
            messages.append(message)
            if not message.tool_calls:
                break
            for call in message.tool_calls:
                result = {"role": "tool", "tool_call_id": call.id, "content": case["result"]}
                messages.append(result)
    return answers


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"answers": converse(case)}
    except litellm.exceptions.APIError as error:
        return {"error": str(error)}
    except litellm.exceptions.BadRequestError as error:
        return {"error": str(error)}


json.dump([outcome(case) for case in json.load(sys.stdin)], sys.stdout)
