"""The tools of a request as the model is told of them, and the names of its calls on the wire.

Rules: the model sees functions with names of 64 letters, digits, `_` and `-`, each once. A tool of
a namespace keeps its bare name where no other tool has it, so that the prompt stays short. A custom
tool is a function with one text as its argument. Tools that OpenAI would run are not offered.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from millstream.errors import InvalidRequest
from millstream.intake.fields.tool_choice import MAX_AGENT_TOOLS
from millstream.intake.fields.tools import Tool
from millstream.intake.hints import check_hints, is_hint
from millstream.intake.requests.agent_chat import FormedTool
from millstream.intake.responses.item_kinds import Name
from millstream.intake.responses.items import check_model
from millstream.intake.responses.lark_patterns import NotRegular, pattern_of_lark, whole_text
from millstream.intake.strict_body import Body

_LONGEST_NAME = 64
CUSTOM_ARGUMENT = "input"
"""The one argument of a custom tool."""


class ToolOrigin(NamedTuple):
    """What a tool is called on the wire. namespace: of those that belong to one."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str | None = None


class _Callable(Body):
    """Keys of every tool that is called. The last four are hints."""

    name: Name
    description: str | None = None
    allowed_callers: Any = None
    async_: Any = Field(None, alias="async")
    defer_loading: Any = None
    output_schema: Any = None


class _Function(_Callable):
    type: Literal["function"]
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _CustomFormat(Body):
    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class _Custom(_Callable):
    type: Literal["custom"]
    format: _CustomFormat | None = None


class _Namespace(Body):
    type: Literal["namespace"]
    name: Name
    description: str | None = None
    tools: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_AGENT_TOOLS)


class _Offered(NamedTuple):
    """A tool with its place in the body. head: what stands before its description."""

    path: str
    tool: _Function | _Custom
    namespace: str | None = None
    head: str = ""


class ToolNames:
    """The tools' names, those for the model and those on the wire."""

    def __init__(self, origins: dict[str, ToolOrigin]) -> None:
        """origins: by a tool's name for the model, what it is called on the wire."""
        self.origins = origins
        self._for_models = {(one.namespace, one.name): name for name, one in origins.items()}

    def origin(self, name: str) -> ToolOrigin:
        """What a call of the model is called on the wire; a name that no tool has stays."""
        return self.origins.get(name) or ToolOrigin("function", name)

    def for_model(self, name: str, namespace: str | None = None) -> str:
        """What the model calls a tool; one that is not offered keeps its bare name."""
        known = self._for_models
        return known.get((namespace, name)) or known.get((None, name)) or model_name(name)


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """tools: as chat takes them. paths: the place of each in the body."""

    tools: list[Tool]
    paths: list[str]
    names: ToolNames


def read_tools(
    given: Iterable[tuple[str, Any]], *, more: Iterable[tuple[str, Any]] = ()
) -> OfferedTools:
    """The tools that can be offered. given: each with its path. more: may be there already.

    Raises InvalidRequest.
    """
    offered = [one for path, tool in given for one in _read_tool(tool, path=path)]
    known = {(one.namespace, one.tool.name) for one in offered}
    for path, tool in more:
        for one in _read_tool(tool, path=path):
            if (key := (one.namespace, one.tool.name)) not in known:
                known.add(key)
                offered.append(one)
    if len(offered) > MAX_AGENT_TOOLS:
        raise _refusal("tools", f"there are {len(offered)}, more than {MAX_AGENT_TOOLS}")
    names = _flat_names(offered)
    origins = {
        name: ToolOrigin(one.tool.type, one.tool.name, one.namespace)
        for name, one in zip(names, offered, strict=True)
    }
    tools = [_for_chat(name, one) for name, one in zip(names, offered, strict=True)]
    return OfferedTools(tools, [one.path for one in offered], ToolNames(origins))


def model_name(name: str) -> str:
    """A name as models may be given one: other characters are `_`, long ones end in a digest."""
    allowed = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    if len(allowed) <= _LONGEST_NAME:
        return allowed
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{allowed[: _LONGEST_NAME - 9]}_{digest}"


def _read_tool(given: Any, *, path: str) -> Iterator[_Offered]:
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict):
        raise _refusal(path, "should be an object")
    if kind == "namespace":
        namespace = check_model(_Namespace, given, path=path)
        head = f"{namespace.name}: {namespace.description}" if namespace.description else ""
        for place, inner in enumerate(namespace.tools):
            tool = _read_callable(inner, path=f"{path}.tools[{place}]")
            yield _Offered(f"{path}.tools[{place}]", tool, namespace.name, "" if place else head)
    elif not is_hint("responses", "tools[].type", kind) or kind is None:
        yield _Offered(path, _read_callable(given, path=path))


def _read_callable(given: dict[str, Any], *, path: str) -> _Function | _Custom:
    kind = given.get("type")
    if kind not in ("function", "custom"):
        reason = "Field required" if kind is None else "no tool of this type can be offered"
        raise _refusal(f"{path}.type", reason)
    others = {name: value for name, value in given.items() if name != "type"}
    check_hints("responses", others, under="tools[].", at=f"{path}.")
    tool: _Function | _Custom = check_model(
        _Function if kind == "function" else _Custom, given, path=path
    )
    if isinstance(tool, _Custom) and tool.format is not None:
        _check_format(tool.format, path=f"{path}.format")
    return tool


def _check_format(given: _CustomFormat, *, path: str) -> None:
    for name in ("syntax", "definition"):
        value = getattr(given, name)
        if given.type == "grammar" and value is None:
            raise _refusal(f"{path}.{name}", "type grammar needs it")
        if given.type == "text" and value is not None:
            raise _refusal(f"{path}.{name}", "type text has none")


def _flat_names(offered: Sequence[_Offered]) -> list[str]:
    """A name for each tool. Raises InvalidRequest for two tools of one name."""
    seen: set[tuple[str | None, str]] = set()
    bare = Counter(model_name(one.tool.name) for one in offered)
    names: dict[str, None] = {}
    for one in offered:
        if (key := (one.namespace, one.tool.name)) in seen:
            raise _refusal(f"{one.path}.name", f"{one.tool.name} is there twice")
        seen.add(key)
        name = model_name(one.tool.name)
        if one.namespace is not None and bare[name] > 1:
            name = model_name(f"{one.namespace}__{one.tool.name}")
        number, free = 2, name
        while free in names:
            free, number = f"{name[: _LONGEST_NAME - 5]}_{number}", number + 1
        names[free] = None
    return list(names)


def _for_chat(name: str, one: _Offered) -> Tool:
    tool, texts = one.tool, [one.head, one.tool.description or ""]
    if isinstance(tool, _Custom) and tool.format is not None and tool.format.definition:
        texts.append(f"The input has this form ({tool.format.syntax}):\n{tool.format.definition}")
    told: dict[str, Any] = {
        "type": "function",
        "name": name,
        "description": "\n\n".join(filter(None, texts)) or None,
    }
    if isinstance(tool, _Function):
        return Tool(**told, parameters=tool.parameters, strict=tool.strict)
    pattern = _pattern(tool.format)
    held = {} if pattern is None else {"pattern": pattern}
    parameters = {
        "type": "object",
        "properties": {CUSTOM_ARGUMENT: {"type": "string", **held}},
        "required": [CUSTOM_ARGUMENT],
        "additionalProperties": False,
    }
    return FormedTool(**told, parameters=parameters, strict=True if held else None)


def _pattern(given: _CustomFormat | None) -> str | None:
    """What the input of a custom tool can be held to; None if there is no form, or no pattern."""
    if given is None or given.definition is None:
        return None
    if given.syntax == "regex":
        return whole_text(given.definition)
    try:
        return pattern_of_lark(given.definition)
    except NotRegular:
        return None


def _refusal(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {reason}", param=path)
