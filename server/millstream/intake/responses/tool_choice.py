"""The field `tool_choice` as the Responses API writes it, in the words of a chat request."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from millstream.errors import InvalidRequest
from millstream.intake.fields.tool_choice import (
    MAX_AGENT_TOOLS,
    AllowedTools,
    NamedTool,
    ToolChoice,
)
from millstream.intake.hints import is_hint
from millstream.intake.responses.item_kinds import Name
from millstream.intake.responses.items import check_model
from millstream.intake.responses.tools import ToolNames
from millstream.intake.strict_body import Body

_MODES = ("none", "auto", "required")


class _Named(Body):
    type: Literal["function", "custom"]
    name: Name
    namespace: Name | None = None


class _Allowed(Body):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_AGENT_TOOLS)


def check_choice(given: Any) -> None:
    """Raises InvalidRequest for what is no choice, or one of a tool that this server has not."""
    path = "tool_choice"
    if isinstance(given, str):
        if given not in _MODES:
            raise _refusal(path, f"should be one of {', '.join(_MODES)}, or an object")
        return
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict):
        raise _refusal(path, "should be a text or an object")
    if kind == "allowed_tools":
        allowed = check_model(_Allowed, given, path=path)
        for place, tool in enumerate(allowed.tools):
            if _is_hosted(tool.get("type")):
                continue
            check_model(_Named, tool, path=f"{path}.tools[{place}]")
    elif _is_hosted(kind):
        raise _refusal(f"{path}.type", f"this server has no tool {kind}")
    else:
        check_model(_Named, given, path=path)


def choice_for_chat(given: Any, names: ToolNames) -> str | ToolChoice | None:
    """The choice as chat takes it. given: one that was checked.

    Raises InvalidRequest for a tool that is not offered.
    """
    if given is None or isinstance(given, str):
        if given == "required" and not names.origins:
            raise _refusal("tool_choice", "there are no tools to call")
        return None if given == "auto" else given
    if given["type"] != "allowed_tools":
        return ToolChoice(name=_offered(given, names, path="tool_choice"))
    allowed = [
        _offered(tool, names, path=f"tool_choice.tools[{place}]")
        for place, tool in enumerate(given["tools"])
        if not _is_hosted(tool["type"])
    ]
    if not allowed:
        if given["mode"] == "required":
            raise _refusal("tool_choice.tools", "this server has none of them")
        return "none"
    tools = [NamedTool(type="function", name=name) for name in dict.fromkeys(allowed)]
    return ToolChoice(
        type="allowed_tools", allowed_tools=AllowedTools(mode=given["mode"], tools=tools)
    )


def _offered(tool: dict[str, Any], names: ToolNames, *, path: str) -> str:
    """What the model calls a tool."""
    found = [
        name
        for name, origin in names.origins.items()
        if (origin.kind, origin.name) == (tool["type"], tool["name"])
        and tool.get("namespace") in (None, origin.namespace)
    ]
    if not found:
        raise _refusal(f"{path}.name", "none of the tools has this name")
    return found[0]


def _is_hosted(kind: Any) -> bool:
    return kind is not None and is_hint("responses", "tools[].type", kind)


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
