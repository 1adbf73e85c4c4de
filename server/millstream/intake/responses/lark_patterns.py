"""Lark grammars of custom tools as regular expressions, where they are no more than that.

A call's argument is a JSON string, in which no grammar engine follows rules: it follows patterns. A
grammar whose rules do not refer to themselves is one, written out. Source: Lark's grammar
reference; what is not read here raises `NotRegular`, and is left to the model.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

MAX_CHARACTERS = 16_384
"""Of a pattern: rules that use each other twice double it with each step."""
_MAX_GRAMMAR = 65_536

_DEFINITION = re.compile(r"^[ \t]*[?!]?([A-Za-z_]\w*)(?:\.-?\d+)?[ \t]*:", re.M)
_TOKEN = re.compile(
    r"""\s+|//[^\n]*|\#[^\n]*|->\s*\w+  # nothing that is matched
    |(?P<text>"(?:\\.|[^"\\\n])*"i?)
    |(?P<pattern>/(?:\\.|[^/\\\n])+/[imsux]*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<times>[?*+]|~\s*\d+(?:\s*\.\.\s*\d+)?)
    |(?P<sign>\.\.|[|()\[\]])""",
    re.X,
)
_IMPORT = re.compile(r"common\.(\w+)(?:\s*->\s*(\w+))?|common\s*\(([\w\s,]*)\)")
_COMMON = {
    "CNAME": r"[A-Za-z_][A-Za-z_0-9]*",
    "CR": r"\r",
    "DIGIT": r"[0-9]",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"',
    "HEXDIGIT": r"[0-9A-Fa-f]",
    "INT": r"[0-9]+",
    "LCASE_LETTER": r"[a-z]",
    "LETTER": r"[A-Za-z]",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "SIGNED_INT": r"[+-]?[0-9]+",
    "UCASE_LETTER": r"[A-Z]",
    "WORD": r"[A-Za-z]+",
    "WS": r"[ \t\x0c\r\n]+",
    "WS_INLINE": r"[ \t]+",
}


_ENDS = (("sign", "|"), ("sign", ")"), ("sign", "]"))


class NotRegular(ValueError):
    """A grammar that no pattern can say, or that is not understood."""


def pattern_of_lark(grammar: str) -> str:
    """A pattern for whole texts of the grammar. Raises NotRegular."""
    if len(grammar) > _MAX_GRAMMAR:
        raise NotRegular("the grammar is too long")
    try:
        return whole_text(_Grammar(grammar).pattern("start"))
    except RecursionError as error:
        raise NotRegular("the grammar is nested too deeply") from error


def whole_text(pattern: str) -> str:
    """A pattern that the whole of a text matches, for the keyword `pattern` of a schema."""
    return f"^(?:{pattern})$"


class _Grammar:
    """The rules by name, each written out when it is asked for."""

    def __init__(self, grammar: str) -> None:
        self._known: dict[str, str] = {}
        self._open: list[str] = []
        lines = []
        for line in grammar.splitlines():
            if line.lstrip().startswith("%"):
                self._import(line.strip())
            else:
                lines.append(line)
        pieces = _DEFINITION.split("\n".join(lines))
        self._bodies = dict(zip(pieces[1::2], pieces[2::2], strict=True))

    def pattern(self, name: str) -> str:
        """What a rule or terminal matches."""
        if name in self._known:
            return self._known[name]
        if name in self._open:
            raise NotRegular(f"{name} refers to itself")
        if name not in self._bodies:
            raise NotRegular(f"there is no {name}")
        self._open.append(name)
        body = _Body(self, self._bodies[name])
        self._known[name] = body.whole()
        self._open.pop()
        return self._known[name]

    def _import(self, line: str) -> None:
        found = _IMPORT.fullmatch(line.removeprefix("%import").strip())
        if found is None or not line.startswith("%import"):
            raise NotRegular(line[:80])
        names = [(found[1], found[2] or found[1])] if found[1] else []
        names += [(name, name) for name in re.findall(r"\w+", found[3] or "")]
        for name, known_as in names:
            if name not in _COMMON:
                raise NotRegular(f"common.{name}")
            self._known[known_as] = f"(?:{_COMMON[name]})"


class _Body:
    """What stands behind the name of a rule."""

    def __init__(self, grammar: _Grammar, text: str) -> None:
        self._grammar = grammar
        self._tokens = list(_tokens(text))[::-1]  # the next one last

    def whole(self) -> str:
        pattern = self._options()
        if self._tokens:
            raise NotRegular(f"{self._tokens[-1][1]} is in no place for it")
        return pattern

    def _options(self) -> str:
        options = [self._sequence()]
        while self._next() == ("sign", "|"):
            self._tokens.pop()
            options.append(self._sequence())
        return _short("(?:" + "|".join(options) + ")")

    def _sequence(self) -> str:
        pattern = ""
        while (token := self._next()) is not None and token not in _ENDS:
            part = self._atom()
            while (token := self._next()) is not None and token[0] == "times":
                part = f"(?:{part}{_times(self._tokens.pop()[1])})"
            pattern = _short(pattern + part)
        return pattern

    def _atom(self) -> str:
        kind, text = self._tokens.pop()
        if kind == "name":
            return self._grammar.pattern(text)
        if kind == "text":
            if self._next() == ("sign", ".."):
                self._tokens.pop()
                return _range(text, self._tokens.pop()[1] if self._tokens else "")
            return _literal(text)
        if kind == "pattern":
            inner, _, flags = text[1:].rpartition("/")
            return f"(?{flags}:{inner.replace(chr(92) + '/', '/')})"
        if text in ("(", "["):
            inside = self._options()
            if self._next() != ("sign", ")" if text == "(" else "]"):
                raise NotRegular(f"{text} is not closed")
            self._tokens.pop()
            return inside if text == "(" else f"{inside}?"
        raise NotRegular(f"{text} is in no place for it")

    def _next(self) -> tuple[str, str] | None:
        return self._tokens[-1] if self._tokens else None


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise NotRegular(text[place : place + 20])
        if found.lastgroup is not None:
            yield found.lastgroup, found[0]
        place = found.end()


def _times(text: str) -> str:
    if text in ("?", "*", "+"):
        return text
    low, _, high = text[1:].replace(" ", "").partition("..")
    return f"{{{low},{high or low}}}"


def _literal(text: str) -> str:
    is_any_case = text.endswith("i")
    escaped = _escaped(_said(text.removesuffix("i")))
    return f"(?i:{escaped})" if is_any_case else f"(?:{escaped})"


def _range(first: str, last: str) -> str:
    ends = [_said(end) if end.startswith('"') else "" for end in (first, last)]
    if any(len(end) != 1 for end in ends):
        raise NotRegular("a range is from one character to another")
    return f"[{_escaped(ends[0])}-{_escaped(ends[1])}]"


def _escaped(text: str) -> str:
    """The text where a pattern stands; signs as numbers, which mean the same in all dialects."""
    return "".join(
        letter
        if letter.isalnum() or letter in " _" or ord(letter) > 127
        else f"\\x{ord(letter):02x}"
        for letter in text
    )


def _short(pattern: str) -> str:
    if len(pattern) > MAX_CHARACTERS:
        raise NotRegular("the pattern is too long")
    return pattern


def _said(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError) as error:
        raise NotRegular(text[:80]) from error
