"""How models write tool calls, as data: what `formats` reads, from the other side.

A grammar is made of these texts, so that a call that is asked for comes in the form in which the
model was trained to write it. Rule: what is written here is read by the format of the same name; a
writing that a model's parser does not read is not used (`detection`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from millstream.text.parsing.call_formats import CallFormat
from millstream.text.parsing.markup_parser import Held
from millstream.text.parsing.output import OutputParser, parse_whole


@dataclass(frozen=True, slots=True)
class TaggedValues:
    """The texts around a key and its value. close_tag: the part of `close` no value may have."""

    open: str
    after_key: str
    close: str
    close_tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWriting:
    """One way to write calls.

    before, after: around all calls of an answer. call, arguments, end: before a call's name,
    between its name and its arguments, after these. between: between two calls; None: an answer
    has one call only. values: for arguments in tags, else they are JSON.
    starts: texts with which a call begins, so that no free text contains them; each is a part of
    `before + call`, or stands before it, or ends a message.
    call_at_start: an answer that begins with `call` is a call, whatever `starts` says.
    messages: what opens a message without a call, where an answer is made of messages; the first
    opens reasoning. message_end: what stands between two messages.
    sign: what a chat template contains that writes calls in this way.
    """

    call: str
    arguments: str
    end: str
    starts: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    between: str | None = ""
    values: TaggedValues | None = None
    call_at_start: bool = False
    messages: tuple[str, ...] = ()
    message_end: str = ""
    sign: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is written beside names and values."""
        tags = self.values
        return (
            *(self.before, self.call, self.arguments, self.end, self.between or "", self.after),
            *((tags.open, tags.after_key, tags.close) if tags else ()),
            *(*self.messages, self.message_end, *self.starts),
        )


_NAMED = '{"name": "'
_ARGUMENTS = '", "arguments": '

# Of several ways the first whose sign is there.
WRITINGS: Mapping[str, tuple[CallWriting, ...]] = {
    "qwen3-coder": (
        CallWriting(
            starts=("<tool_call>", "<function="),
            call="<tool_call>\n<function=",
            arguments=">\n",
            values=TaggedValues("<parameter=", ">\n", "\n</parameter>\n", "</parameter>"),
            end="</function>\n</tool_call>",
            between="\n",
        ),
    ),
    "glm": (
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
    "minimax": (
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
    "hermes": (
        CallWriting(
            starts=("<tool_call>",),
            call="<tool_call>\n" + _NAMED,
            arguments=_ARGUMENTS,
            end="}\n</tool_call>",
            between="\n",
        ),
    ),
    "mistral": (
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
    "deepseek": (
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
    # What ends a call here ends the turn, so it is not written but drawn as the end.
    "harmony": (
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
    "llama3": (
        CallWriting(
            starts=("<|python_tag|>",),
            call_at_start=True,
            call=_NAMED,
            arguments='", "parameters": ',
            end="}",
            between="; ",
        ),
    ),
}

# For models that nothing is known of, or that cannot write an argument in their own way.
JSON_WRITING = CallWriting(
    before="[", call=_NAMED, arguments=_ARGUMENTS, end="}", between=", ", after="]"
)
JSON_CALLS = CallFormat(
    r"\A\s*\[\s*(?=\{)", "call", ends=(r"\]",), separator=r",\s*(?=\{)", at_start=True
)


def is_read_back(way: CallWriting, parser_of: Callable[..., OutputParser]) -> bool:
    """Whether calls with an argument, written in this way, are read as what they are."""
    value, tags = '{"key": "text"}', way.values
    if tags is not None:
        value = f"{tags.open}key{tags.after_key}text{tags.close}"
    names = ["f"] if way.between is None else ["f", "g-2"]
    calls = [f"{way.call}{name}{way.arguments}{value}{way.end}" for name in names]
    text = way.before + (way.between or "").join(calls) + way.after
    parameters = {"type": "object", "properties": {"key": {"type": "string"}}}
    functions = [{"name": name, "parameters": parameters} for name in names]
    tools = [{"type": "function", "function": function} for function in functions]
    said = parse_whole(parser_of(prompt="", tools=tools, held=Held.ANSWER), text)
    read = [(call.name, json.loads(call.arguments)) for call in said.calls]
    return read == [(name, {"key": "text"}) for name in names] and not said.content
