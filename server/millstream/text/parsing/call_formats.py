"""The formats in which models write reasoning and tool calls, as data.

Rules for the patterns, on which streaming rests:
1. They are regular expressions of the `regex` package, which can tell that a text may become a
   match. Where a match ends never depends on text that may follow it: no optional end.
2. No negative lookahead, which a text that goes on could undo. White space after a marker belongs
   to no pattern but before a lookahead; the parser drops it.
3. A special token that belongs to a pattern stands in it as `regex.escape` writes it.

`signs` are literal: a chat template that contains one of them speaks the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Body = Literal["call", "arguments", "parameters"]


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """open, close: patterns around the reasoning. noise: patterns that are no text at all."""

    name: str
    open: str
    close: str
    signs: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One way to write a call.

    body: "call" is a JSON object with a name and arguments; "arguments" is the JSON object of
    arguments and "parameters" are tags, both after an `open` that captures the call's `name`.
    ends: what stands after a call, one after the other, white space between. Each may be missing,
    but the first one of a "parameters" body, which ends it. separator: another body follows.
    at_start: a call only where the answer has no content yet. needs_arguments: and only if it
    has arguments, for formats that a JSON answer could be taken for.
    parameter, parameter_close: the tags around a value; the first captures its `key`.
    strip: a value's white space goes (else one line break on either side).
    """

    open: str
    body: Body
    ends: tuple[str, ...] = ()
    separator: str | None = None
    at_start: bool = False
    name_key: str = "name"
    arguments_keys: tuple[str, ...] = ("arguments", "parameters")
    needs_arguments: bool = False
    parameter: str = ""
    parameter_close: str = ""
    strip: bool = False


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """The ways one family of models writes calls."""

    name: str
    signs: tuple[str, ...]
    calls: tuple[CallFormat, ...]
    noise: tuple[str, ...] = ()


_HARMONY_NAME = r" to=functions\.(?P<name>[\w.-]+)"
_HARMONY_TYPE = r"\s*(?:<\|constrain\|>)?\w*<\|message\|>"
_HARMONY_NOISE = (
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:final|commentary)" + _HARMONY_TYPE,
    r"<\|(?:end|return|call)\|>",
)

REASONING_FORMATS = (
    ReasoningFormat("think", "<think>", "</think>", ("</think>",)),
    ReasoningFormat("magistral", r"\[THINK\]", r"\[/THINK\]", ("[THINK]",)),
    ReasoningFormat("seed", "<seed:think>", "</seed:think>", ("</seed:think>",)),
    ReasoningFormat(
        "harmony",
        r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>",
        r"<\|end\|>",
        ("<|channel|>",),
        noise=_HARMONY_NOISE,
    ),
)

# The first format whose sign occurs wins: those that share a marker stand before the plainer one.
TOOL_FORMATS = (
    ToolFormat(
        "qwen3-coder",
        signs=("<parameter=",),
        calls=(
            CallFormat(
                r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n]+)>",
                "parameters",
                ends=("</function>", "</tool_call>"),
                parameter=r"<parameter=(?P<key>[^>\n]+)>",
                parameter_close="</parameter>",
            ),
        ),
    ),
    ToolFormat(
        "glm",
        signs=("<arg_key>",),
        calls=(
            CallFormat(
                r"<tool_call>\s*(?P<name>[\w.-]+)\s*(?=<arg_key>|</tool_call>)",
                "parameters",
                ends=("</tool_call>",),
                parameter=r"<arg_key>(?P<key>[^<\n]+)</arg_key>\s*<arg_value>",
                parameter_close="</arg_value>",
            ),
        ),
    ),
    ToolFormat(
        "minimax",
        signs=("<minimax:tool_call>",),
        calls=(
            CallFormat(
                r'(?:<minimax:tool_call>\s*)?<invoke name="(?P<name>[^">\n]+)">',
                "parameters",
                ends=("</invoke>", "</minimax:tool_call>"),
                parameter=r'<parameter name="(?P<key>[^">\n]+)">',
                parameter_close="</parameter>",
            ),
        ),
    ),
    ToolFormat(
        "hermes",
        signs=("<tool_call>",),
        calls=(
            CallFormat(
                r"<tool_call>\s*(?=\{)", "call", ends=("</tool_call>",), separator=r"(?=\{)"
            ),
        ),
    ),
    ToolFormat(
        "mistral",
        signs=("[TOOL_CALLS]",),
        calls=(
            CallFormat(
                r"\[TOOL_CALLS\]\s*\[\s*(?=\{)",
                "call",
                ends=(r"\]",),
                separator=r",\s*(?=\{)",
            ),
            CallFormat(
                r"\[TOOL_CALLS\]\s*(?P<name>[\w.-]+)\s*(?:\[CALL_ID\]\w+)?(?:\[ARGS\]\s*)?(?=\{)",
                "arguments",
            ),
        ),
    ),
    ToolFormat(
        "deepseek",
        signs=("<｜tool▁call▁begin｜>",),
        calls=(
            CallFormat(
                r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>"
                r"(?:function<｜tool▁sep｜>(?P<name>[\w.-]+)\s*```json\s*(?=\{)"
                r"|(?P<name>[\w.-]+)<｜tool▁sep｜>\s*(?=\{))",
                "arguments",
                ends=(r"(?:```\s*)?<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
            ),
        ),
    ),
    ToolFormat(
        "harmony",
        signs=("<|channel|>",),
        calls=tuple(
            CallFormat(
                r"(?:<\|start\|>assistant)?" + header + _HARMONY_TYPE,
                "arguments",
                ends=(r"<\|call\|>",),
            )
            for header in (
                r"<\|channel\|>(?:commentary|analysis)" + _HARMONY_NAME,
                _HARMONY_NAME + r"<\|channel\|>(?:commentary|analysis)",
            )
        ),
        noise=_HARMONY_NOISE,
    ),
    ToolFormat(
        "llama3",
        signs=("<|python_tag|>", '"parameters": dictionary of argument name'),
        calls=tuple(
            CallFormat(
                open,
                "call",
                separator=r"[;,]?\s*(?=\{)",
                at_start=at_start,
                needs_arguments=True,
            )
            for open, at_start in ((r"<\|python_tag\|>\s*(?=\{)", False), (r"\A\s*(?=\{)", True))
        ),
    ),
)
