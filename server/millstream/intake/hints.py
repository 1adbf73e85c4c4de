"""The one table of hints: what programs send that a local server need not obey to answer right.

Rules: a field with a value of its row is taken and changes nothing; with any other value it is
refused by its name, and so is whatever no row names. docs/hints.md is written from this table, and
tests send every row. The chat route's own table of fields that may have one neutral value
(`intake/fields/unsupported.py`) lists what other servers implement and this one does not; a row
here is a field that no local server could give a meaning to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.errors import InvalidRequest
from millstream.intake.hint import Api, Hint, JsonKind
from millstream.intake.messages_hints import MESSAGES_HINTS

_HOSTED_TOOLS = (
    "web_search*",
    "file_search",
    "computer*",
    "code_interpreter",
    "image_generation",
    "mcp",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
    "programmatic_tool_calling",
)


def _responses(field: str, values: tuple[Any, ...] | JsonKind, *words: str) -> Hint:
    sent_by, meaning = words
    return Hint(api="responses", field=field, values=values, sent_by=sent_by, meaning=meaning)


HINTS: tuple[Hint, ...] = (
    _responses(
        "client_metadata", "object", "Codex CLI", "Names of its own session; nothing reads them."
    ),
    _responses(
        "include[]",
        (
            "code_interpreter_call.outputs",
            "computer_call_output.output.image_url",
            "file_search_call.results",
            "message.input_image.image_url",
            "web_search_call.action.sources",
            "web_search_call.results",
        ),
        "openai-agents, Vercel AI SDK",
        "More about items that no answer of this server has.",
    ),
    _responses(
        "max_tool_calls",
        "integer",
        "openai SDK",
        "A bound for calls of tools that the server runs; it runs none. Echoed.",
    ),
    _responses(
        "prompt_cache_key",
        "text",
        "Codex CLI, Vercel AI SDK",
        "Prefixes are found by their content, whatever they are called. Echoed.",
    ),
    _responses(
        "prompt_cache_options",
        "object",
        "openai SDK",
        "Every prompt is cached for as long as there is room.",
    ),
    _responses(
        "prompt_cache_retention",
        ("in_memory", "in-memory", "24h"),
        "openai SDK",
        "Prefixes are kept for as long as there is room. Echoed.",
    ),
    _responses(
        "reasoning.effort",
        ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        "Codex CLI, openai-agents",
        "Given to the chat template; one that has no word for it says nothing about it. Echoed.",
    ),
    _responses(
        "reasoning.generate_summary",
        ("auto", "concise", "detailed"),
        "older openai SDKs",
        "The old name of reasoning.summary.",
    ),
    _responses(
        "reasoning.summary",
        ("auto", "concise", "detailed"),
        "Codex CLI, openai-agents",
        "Thoughts are shown whole, so nothing has to be summarised. Echoed.",
    ),
    _responses(
        "safety_identifier",
        "text",
        "openai SDK",
        "A name of the user for OpenAI's own checks. Echoed.",
    ),
    _responses(
        "service_tier",
        ("auto", "default", "fast", "flex", "priority", "scale", "ultrafast"),
        "Codex CLI, openai SDK",
        "There is one tier; the answer says `default`.",
    ),
    _responses(
        "stream_options.include_obfuscation",
        "boolean",
        "openai SDK",
        "Padding against those who watch the network; none is added.",
    ),
    _responses(
        "text.verbosity",
        ("low", "medium", "high"),
        "Codex CLI, openai-agents",
        "Chat templates have no word for it. Echoed.",
    ),
    _responses(
        "tools[].type",
        _HOSTED_TOOLS,
        "Codex CLI, openai-agents",
        "Tools that OpenAI runs: not offered to the model, and refused where `tool_choice` "
        "demands one. Echoed.",
    ),
    _responses(
        "tools[].allowed_callers",
        "list",
        "openai SDK",
        "Who else may call the tool; here only the model does.",
    ),
    _responses(
        "tools[].async",
        "boolean",
        "openai SDK",
        "Whether its result may come later; a result comes when the client sends it.",
    ),
    _responses(
        "tools[].defer_loading",
        "boolean",
        "Codex CLI",
        "The tool is offered from the start, since nothing searches for tools.",
    ),
    _responses(
        "tools[].output_schema",
        "object",
        "Codex CLI",
        "What the tool gives back; no chat template shows it.",
    ),
    _responses("user", "text", "LangChain, openai SDK", "A word for the log. Echoed."),
    *MESSAGES_HINTS,
)


def is_hint(api: Api, field: str, value: Any) -> bool:
    """Whether a row takes this value of a field, which is given as rows write it."""
    return any(hint.takes(value) for hint in HINTS if (hint.api, hint.field) == (api, field))


def check_hints(
    api: Api, fields: Mapping[str, Any], *, under: str = "", at: str | None = None
) -> None:
    """Raises InvalidRequest that names the first field whose row does not take its value.

    under: the path of the object that has the fields, as rows write it, with a dot behind; none for
    the body. at: the same with its place in a list.
    """
    for hint in HINTS:
        name = hint.field.removeprefix(under)
        is_here = hint.api == api and hint.field.startswith(under) and name in fields
        if is_here and not hint.takes(fields[name]):
            path = f"{under if at is None else at}{name}"
            raise InvalidRequest(f"{path}: {_wanted(hint)}", param=path)


def _wanted(hint: Hint) -> str:
    if isinstance(hint.values, str):
        return f"should be of kind {hint.values}"
    return "should be one of " + ", ".join(map(str, hint.values))
