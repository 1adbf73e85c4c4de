"""What a row of `call_families` is made of: how a call is read, and how it is written.

The two sides of one format: `CallFormat` has the patterns by which a call is found in what a model
says, `CallWriting` the texts of which a grammar is made, so that a call that is asked for comes in
the form in which the model was trained to write it.

Rules for the patterns, on which streaming rests:
1. They are regular expressions of the `regex` package, which can tell that a text may become a
   match. Where a match ends never depends on text that may follow it: no optional end.
2. No negative lookahead, which a text that goes on could undo. White space after a marker belongs
   to no pattern but before a lookahead; the parser drops it.
3. A special token that belongs to a pattern stands in it as `regex.escape` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Body = Literal["call", "arguments", "parameters"]


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
        around_calls = (self.before, self.call, self.arguments, self.end, self.after)
        around_values = (tags.open, tags.after_key, tags.close) if tags else ()
        between = (self.between or "", self.message_end)
        return (*around_calls, *around_values, *between, *self.messages, *self.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFamily:
    """The ways in which one family of models writes calls.

    signs: literal texts; a chat template that contains one of them speaks the format.
    calls: the ways to read a call. writings: the ways to write one; the first whose `sign` the chat
    template contains is taken. noise: patterns that are no text at all.
    """

    name: str
    signs: tuple[str, ...] = ()
    calls: tuple[CallFormat, ...]
    writings: tuple[CallWriting, ...]
    noise: tuple[str, ...] = ()
