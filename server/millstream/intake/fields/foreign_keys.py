"""Keys that other programs leave in messages, parts, calls and tools, and that ask for nothing.

Rules: an agent sends back what it was given, with what the programs between wrote into it, so these
keys are taken wherever they were seen; a chat template that names one gets it. All other keys are
refused. docs/api.md says who sends each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from millstream.intake.strict_body import Body

Reads = Callable[[str], bool]
"""Whether the model's chat template mentions a name."""


class MessageKeys(Body):
    annotations: Any = None
    cache_control: Any = None
    extra_content: Any = None
    id: Any = None
    provider_specific_fields: Any = None
    reasoning_details: Any = None
    reasoning_items: Any = None
    thinking_blocks: Any = None


class MessageNulls(Body):
    images: None = None
    logprobs: None = None
    reasoning_opaque: None = None
    reasoning_text: None = None
    stop_reason: None = None
    token_ids: None = None


class PartKeys(Body):
    annotations: Any = None
    cache_control: Any = None
    extra_content: Any = None
    id: Any = None
    index: Any = None
    provider_specific_fields: Any = None
    signature: Any = None


class PartNulls(Body):
    citations: None = None


class CallKeys(Body):
    cache_control: Any = None
    extra_content: Any = None
    provider_specific_fields: Any = None


class CalledFunctionKeys(Body):
    index: Any = None
    provider_specific_fields: Any = None


class ToolKeys(Body):
    cache_control: Any = None


KEYS: dict[str, type[Body]] = {
    "message": MessageKeys,
    "part": PartKeys,
    "call": CallKeys,
    "call's function": CalledFunctionKeys,
    "tool and its function": ToolKeys,
}
"""Place -> the keys that are taken there, as docs/api.md lists them."""

NULL_KEYS: dict[str, type[Body]] = {"message": MessageNulls, "part": PartNulls}
"""Place -> the keys that are taken there as null; another value would ask for something."""


def keys_for_template(body: Body, reads: Reads) -> dict[str, Any]:
    """The foreign keys of a part of the body that the template mentions, with their values."""
    return {
        name: value
        for name in sorted(_names(type(body)) & body.model_fields_set)
        if (value := getattr(body, name)) is not None and reads(name)
    }


def reads_nothing(name: str) -> bool:
    """For whoever has no template."""
    return False


@cache
def _names(kind: type[Body]) -> frozenset[str]:
    found = [keys.model_fields for keys in KEYS.values() if issubclass(kind, keys)]
    return frozenset(name for fields in found for name in fields)
