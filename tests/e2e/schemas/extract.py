"""Writes openai_responses.json: what OpenAI's API document says of responses and conversations.

Words for people are left out, and `oneOf` becomes `anyOf`, since alternatives of the document
overlap. The document is under the MIT licence: https://github.com/openai/openai-openapi

    python tests/e2e/schemas/extract.py openapi.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OBJECTS = (
    "Response",
    "ResponseItemList",
    "ConversationResource",
    "ConversationItemList",
    "DeletedConversationResource",
)
EVENTS = "ResponseStreamEvent"
_WORDS = frozenset({"description", "title", "example", "examples", "summary", "deprecated"})
_WHERE = "#/components/schemas/"


def extract(document: dict[str, Any]) -> dict[str, Any]:
    """The schemas with all that they refer to, by name, and the names of the events by type."""
    schemas, events = document["components"]["schemas"], {}
    for each in schemas[EVENTS]["anyOf"]:
        name = each["$ref"].removeprefix(_WHERE)
        for kind in schemas[name]["properties"]["type"]["enum"]:
            events[kind] = name
    found: dict[str, Any] = {}
    waiting = [*OBJECTS, *events.values()]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _plain(schemas[name])
            waiting += _names(schemas[name])
    version = document["info"]["version"]
    source = f"openai/openai-openapi, version {version}, MIT licence; made by extract.py"
    return {"source": source, "events": events, "schemas": dict(sorted(found.items()))}


def _plain(part: Any, *, is_members: bool = False) -> Any:
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if not isinstance(part, dict):
        return part
    plain = {}
    for key, value in part.items():
        if not is_members and (key in _WORDS or key.startswith("x-")):
            continue
        name = "anyOf" if key == "oneOf" and not is_members else key
        plain[name] = _plain(value, is_members=key == "properties" and not is_members)
    return plain


def _names(part: Any) -> list[str]:
    if isinstance(part, list):
        return [name for each in part for name in _names(each)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"].removeprefix(_WHERE)] if isinstance(part.get("$ref"), str) else []
    return own + [name for each in part.values() for name in _names(each)]


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    made = extract(json.loads(text))
    lines = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in made["schemas"].items()]
    head = "".join(f"{json.dumps(key)}: {json.dumps(made[key])},\n" for key in ("source", "events"))
    page = "{\n" + head + '"schemas": {\n' + ",\n".join(lines) + "\n}}\n"
    Path(__file__).with_name("openai_responses.json").write_text(page, encoding="utf-8")
