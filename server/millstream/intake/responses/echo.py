"""What the resource of a response repeats of its request, with the default of what was not sent.

Source: the Open Responses specification, `ResponseResource`, where every one of these members must
be there, and no number may be null.
"""

from __future__ import annotations

from typing import Any

from millstream.intake.fields.response_format import JsonSchema, ResponseFormat
from millstream.intake.responses.response_fields import ResponseFields

_PLAIN = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
"""Members that are as they were sent, or null."""


def echo(fields: ResponseFields) -> dict[str, Any]:
    """The members, by their names. temperature and top_p are 1 where the request has none."""
    plain = {name: getattr(fields, name) for name in _PLAIN}
    reasoning, conversation = fields.reasoning, fields.conversation_id
    return plain | {
        "background": bool(fields.background),
        "conversation": None if conversation is None else {"id": conversation},
        "frequency_penalty": fields.frequency_penalty or 0.0,
        "metadata": dict(fields.metadata or {}),
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "presence_penalty": fields.presence_penalty or 0.0,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": (reasoning.summary or reasoning.generate_summary) if reasoning else None,
        },
        "service_tier": "default",
        "store": fields.store is not False,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "text": _text(fields),
        "tool_choice": "auto" if fields.tool_choice is None else fields.tool_choice,
        "tools": [_tool(tool) for tool in fields.tools or ()],
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": 1.0 if fields.top_p is None else fields.top_p,
        "truncation": fields.truncation or "disabled",
    }


def _text(fields: ResponseFields) -> dict[str, Any]:
    wishes = fields.text
    verbosity = None if wishes is None else wishes.verbosity
    wanted = None if wishes is None else wishes.format
    return {"format": _format(wanted), "verbosity": verbosity or "medium"}


def _format(wanted: ResponseFormat | None) -> dict[str, Any]:
    if wanted is None:
        return {"type": "text"}
    named = wanted.json_schema or JsonSchema(
        name=wanted.name,
        description=wanted.description,
        schema=wanted.schema_,
        strict=wanted.strict,
    )
    if wanted.type != "json_schema":
        return wanted.model_dump(by_alias=True, exclude_none=True)
    return {
        "type": "json_schema",
        "name": named.name or "answer",
        "description": named.description,
        "schema": named.schema_ if named.schema_ is not None else {},
        "strict": bool(named.strict),
    }


def _tool(tool: Any) -> Any:
    if tool["type"] != "function":
        return tool
    defaults = {"description": None, "parameters": None, "strict": False}
    return defaults | {name: value for name, value in tool.items() if value is not None}
