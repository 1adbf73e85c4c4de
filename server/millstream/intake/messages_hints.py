"""The rows of the Messages API in the table of hints.

Source: Anthropic's SDK 2.14, `MessageCreateParams`, and what Claude Code 2.1 was seen to send.
"""

from __future__ import annotations

from typing import Any

from millstream.intake.hint import Hint, JsonKind

HOSTED_TOOLS = ("web_search_*", "web_fetch_*", "code_execution_*", "tool_search_tool_*")


def _row(field: str, values: tuple[Any, ...] | JsonKind, *words: str) -> Hint:
    sent_by, meaning = words
    return Hint(api="messages", field=field, values=values, sent_by=sent_by, meaning=meaning)


_CACHED = "Prefixes are found by their content, wherever the marks stand."

MESSAGES_HINTS: tuple[Hint, ...] = (
    _row("cache_control", "object", "anthropic SDK, Claude Code", _CACHED),
    _row("system[].cache_control", "object", "anthropic SDK, Claude Code", _CACHED),
    _row("messages[].content[].cache_control", "object", "anthropic SDK, Claude Code", _CACHED),
    _row("tools[].cache_control", "object", "anthropic SDK, Claude Code", _CACHED),
    _row(
        "messages[].content[].signature",
        "text",
        "Claude Code, anthropic SDK",
        "A thought is taken back with any signature.",
    ),
    _row("metadata.user_id", "text", "Claude Code", "A name of the user; nothing reads it."),
    _row(
        "service_tier",
        ("auto", "standard_only"),
        "anthropic SDK",
        "There is one tier; the usage says `standard`.",
    ),
    _row("speed", ("standard", "fast"), "anthropic SDK", "There is one speed."),
    _row("inference_geo", "text", "anthropic SDK", "The answer is made where the server is."),
    _row("user_profile_id", "text", "anthropic SDK", "A name of the user; nothing reads it."),
    _row("diagnostics", "object", "anthropic SDK", "A wish to hear why a prefix was not cached."),
    _row(
        "betas",
        "list",
        "programs that put the header `anthropic-beta` into the body",
        "Names of what is taken or refused here by its own field.",
    ),
    _row(
        "output_config.effort",
        ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        "Claude Code",
        "Given to the chat template; one that has no word for it says nothing about it.",
    ),
    _row(
        "thinking.type",
        ("enabled", "adaptive", "disabled"),
        "Claude Code, anthropic SDK",
        "Sets the chat template's switch; a model without one thinks as it always does.",
    ),
    _row(
        "thinking.budget_tokens",
        "integer",
        "anthropic SDK",
        "A target for the length of thoughts; `max_tokens` is their limit.",
    ),
    _row(
        "tools[].type",
        HOSTED_TOOLS,
        "Claude Code, anthropic SDK",
        "Tools that Anthropic runs: not offered to the model, and refused where `tool_choice` "
        "demands one.",
    ),
    _row(
        "tools[].allowed_callers",
        "list",
        "anthropic SDK",
        "Who else may call the tool; here only the model does.",
    ),
    _row(
        "tools[].defer_loading",
        "boolean",
        "Claude Code",
        "The tool is offered from the start, since nothing searches for tools.",
    ),
    _row(
        "tools[].eager_input_streaming",
        "boolean",
        "Claude Code",
        "Arguments are always streamed as they are made.",
    ),
    _row("header anthropic-version", "anything", "anthropic SDK", "There is one version."),
    _row("header anthropic-beta", "anything", "Claude Code", "Fields are looked at, not names."),
)
