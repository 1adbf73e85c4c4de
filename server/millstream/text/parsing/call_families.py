"""How families of models write tool calls: one row for each.

Rule: a call written by one of a row's `writings` is read by its `calls`; a writing that a model's
parser does not read back is not used (`detection`).
"""

from __future__ import annotations

from millstream.text.parsing.call_formats import CallFamily, CallFormat, CallWriting, TaggedValues
from millstream.text.parsing.reasoning_formats import HARMONY_NOISE, HARMONY_TYPE

_NAMED = '{"name": "'
_ARGUMENTS = '", "arguments": '

_HARMONY_NAME = r" to=functions\.(?P<name>[\w.-]+)"

# The first row whose sign occurs wins: those that share a marker stand before the plainer one.
CALL_FAMILIES = (
    CallFamily(
        name="qwen3-coder",
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
        writings=(
            CallWriting(
                starts=("<tool_call>", "<function="),
                call="<tool_call>\n<function=",
                arguments=">\n",
                values=TaggedValues("<parameter=", ">\n", "\n</parameter>\n", "</parameter>"),
                end="</function>\n</tool_call>",
                between="\n",
            ),
        ),
    ),
    CallFamily(
        name="glm",
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
        writings=(
            CallWriting(
                starts=("<tool_call>",),
                call="<tool_call>",
                arguments="\n",
                values=TaggedValues(
                    "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", "</arg_value>"
                ),
                end="</tool_call>",
                between="\n",
            ),
        ),
    ),
    CallFamily(
        name="minimax",
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
        writings=(
            CallWriting(
                starts=("<minimax:tool_call>", '<invoke name="'),
                before="<minimax:tool_call>\n",
                call='<invoke name="',
                arguments='">\n',
                values=TaggedValues('<parameter name="', '">', "</parameter>\n", "</parameter>"),
                end="</invoke>\n",
                after="</minimax:tool_call>",
            ),
        ),
    ),
    CallFamily(
        name="hermes",
        signs=("<tool_call>",),
        calls=(
            CallFormat(
                r"<tool_call>\s*(?=\{)", "call", ends=("</tool_call>",), separator=r"(?=\{)"
            ),
        ),
        writings=(
            CallWriting(
                starts=("<tool_call>",),
                call="<tool_call>\n" + _NAMED,
                arguments=_ARGUMENTS,
                end="}\n</tool_call>",
                between="\n",
            ),
        ),
    ),
    CallFamily(
        name="mistral",
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
        writings=(
            CallWriting(
                sign="[ARGS]",
                starts=("[TOOL_CALLS]",),
                call="[TOOL_CALLS]",
                arguments="[ARGS]",
                end="",
            ),
            CallWriting(
                starts=("[TOOL_CALLS]",),
                before="[TOOL_CALLS][",
                call=_NAMED,
                arguments=_ARGUMENTS,
                end="}",
                between=", ",
                after="]",
            ),
        ),
    ),
    CallFamily(
        name="deepseek",
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
        writings=(
            CallWriting(
                sign="```json",
                starts=("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
                before="<｜tool▁calls▁begin｜>",
                call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                arguments="\n```json\n",
                end="\n```<｜tool▁call▁end｜>",
                between="\n",
                after="<｜tool▁calls▁end｜>",
            ),
            CallWriting(
                starts=("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
                before="<｜tool▁calls▁begin｜>",
                call="<｜tool▁call▁begin｜>",
                arguments="<｜tool▁sep｜>",
                end="<｜tool▁call▁end｜>",
                after="<｜tool▁calls▁end｜>",
            ),
        ),
    ),
    CallFamily(
        name="harmony",
        signs=("<|channel|>",),
        calls=tuple(
            CallFormat(
                r"(?:<\|start\|>assistant)?" + header + HARMONY_TYPE,
                "arguments",
                ends=(r"<\|call\|>",),
            )
            for header in (
                r"<\|channel\|>(?:commentary|analysis)" + _HARMONY_NAME,
                _HARMONY_NAME + r"<\|channel\|>(?:commentary|analysis)",
            )
        ),
        noise=HARMONY_NOISE,
        writings=(
            # What ends a call here ends the turn, so it is not written but drawn as the end.
            CallWriting(
                messages=tuple(
                    f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final")
                ),
                message_end="<|end|><|start|>assistant",
                starts=("<|channel|>", "<|end|>"),
                call="<|channel|>commentary to=functions.",
                arguments=" <|constrain|>json<|message|>",
                end="",
                between=None,
            ),
        ),
    ),
    CallFamily(
        name="llama3",
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
        writings=(
            CallWriting(
                starts=("<|python_tag|>",),
                call_at_start=True,
                call=_NAMED,
                arguments='", "parameters": ',
                end="}",
                between="; ",
            ),
        ),
    ),
)

PLAIN_JSON = CallFamily(
    name="json",
    calls=(
        CallFormat(
            r"\A\s*\[\s*(?=\{)", "call", ends=(r"\]",), separator=r",\s*(?=\{)", at_start=True
        ),
    ),
    writings=(
        CallWriting(
            before="[", call=_NAMED, arguments=_ARGUMENTS, end="}", between=", ", after="]"
        ),
    ),
)
"""For models that nothing is known of, or that cannot write an argument in their own way."""
