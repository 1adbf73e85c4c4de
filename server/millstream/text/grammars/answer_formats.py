"""From what a client calls a format to a grammar that the engine can follow, checked.

Rules: whatever is wrong with a schema, pattern or grammar is known before the engine hears of it,
and nothing in it is ignored: a keyword that cannot be enforced is an error. Size, depth and the
work of compiling are bounded. The library that compiles may take long, need much memory or end the
process: what a client sends is compiled in a child (`workers/`), never here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark

MAX_CHARACTERS = 65_536
CHECKED_MARK = 257
"""The token that stands for every special one in a grammar that is to be checked."""

_MAX_REASON = 300

# What is chosen where several bytes may come next, so that it leads through much of a schema: into
# an object, then into the next property or value rather than to the end, and out of a text.
_TYPICAL = (b'{["0', *([b'",:{[0'] * 11))

# Texts, classes of characters and comments are passed over; the group is a name.
_GBNF_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^]\\])*\]|#[^\n]*|([\w-]+)')

# A weak model left to write blanks writes nothing else. One space or one indented new line is
# what JSON is usually printed with.
_JSON_OPTIONS: Any = {
    "whitespace_flexible": True,
    "whitespace_pattern": r" |\r?\n[ \t]{0,32}",
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}


class GrammarError(ValueError):
    """The grammar cannot be used; the message says why."""


def json_grammar(schema: Mapping[str, Any] | str) -> str:
    """JSON text of this schema. `x-guidance`, llguidance's own options, is not the client's."""
    try:
        value = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(value, Mapping):
            raise GrammarError("a schema must be an object")
        # Not sorted: properties are written in the order of the schema.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise GrammarError("the schema is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise GrammarError(f"not JSON: {error}") from error
    _check_size(text)
    if "x-guidance" in value:
        raise GrammarError("x-guidance is not a keyword of JSON Schema")
    try:
        return LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
    except ValueError as error:  # nested deeper than its parser goes, or no Unicode text
        raise GrammarError(_short(str(error))) from error


def regex_grammar(pattern: str) -> str:
    """Text that matches the whole pattern, in the syntax of Rust's regex; `\\d` is 0 to 9."""
    _check_size(pattern)
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise GrammarError("the pattern ends in a backslash")  # which would escape our own slash
    return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(pattern, 'd')}/")


def choice_grammar(choices: Sequence[str]) -> str:
    """One of these texts."""
    return lark_grammar("start: " + " | ".join(json.dumps(choice) for choice in choices))


def lark_grammar(grammar: str) -> str:
    """A Lark grammar, or one in EBNF as of llama.cpp (GBNF), which is known by its `::=`."""
    _check_size(grammar)
    if "::=" in grammar:
        try:
            grammar = gbnf_to_lark(_without_start(grammar))
        except Exception as error:  # the converter lets what it did not expect through
            raise GrammarError(f"not a GBNF grammar: {_short(str(error))}") from error
    return LLMatcher.grammar_from_lark(grammar)


def without_forcing(grammar: str) -> str:
    """A grammar as made above, in which a text that cannot go on otherwise is left to be drawn.

    llguidance would take the token of a marker (`<think>`) for the same text, and then not find it
    in the grammar.
    """
    option = '%llguidance {"no_forcing": true}\n'
    if not grammar.startswith("{"):
        return option + grammar
    whole = json.loads(grammar)
    top = {"lark_grammar": f"{option}start: @{whole['grammars'][0]['name']}"}
    return json.dumps({"grammars": [top, *whole["grammars"]]}, ensure_ascii=False)


def grammar_text(kind: str, value: Any) -> str:
    """A grammar of this kind as the engine takes it, not yet checked. Raises GrammarError.

    kind: "json" (value: a schema), "regex", "choice" (value: texts), "grammar" (Lark or GBNF), or
    "ready" for one that is as the engine takes it.
    """
    return _READERS[kind](value)


class GrammarChecker:
    """Compiles grammars for a vocabulary of bytes, where everything but the masks is the same.

    Safe to call from several threads.
    """

    def __init__(self) -> None:
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), eos_token=_Bytes.eos_token_id)
        self._limits = LLParserLimits(verbose_errors=False)

    def check(self, grammar: str) -> None:
        """Raises GrammarError for what cannot be compiled, matches nothing, or, on the way that
        most answers take, needs more than the engine's limits."""
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        for typical in _TYPICAL:
            if not (allowed := self._allowed(matcher)):
                break
            matcher.consume_token(min(allowed, key=lambda byte: typical.find(byte) % 256))
            matcher.consume_tokens(matcher.compute_ff_tokens())
        if reason := matcher.get_error():
            raise GrammarError(_explain(reason))

    def _allowed(self, matcher: LLMatcher) -> list[int]:
        """The bytes that may come next; none at the end, or if the matcher has failed."""
        mask = b"" if matcher.is_error() or matcher.is_stopped() else matcher.compute_bitmask()
        return [byte for byte in range(256) if mask and mask[byte >> 3] >> (byte & 7) & 1]


def _ready(text: str) -> str:
    return text


_READERS: Mapping[str, Callable[[Any], str]] = {
    "json": json_grammar,
    "regex": regex_grammar,
    "choice": choice_grammar,
    "grammar": lark_grammar,
    "ready": _ready,
}


class _Bytes:
    """A tokenizer whose tokens are the bytes, as llguidance wants one."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>", b"<\x01>")
    special_token_ids = (256, CHECKED_MARK)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def _without_start(grammar: str) -> str:
    """The GBNF grammar with a rule named `start` named otherwise: as in Lark, that is its root."""
    names = {match[1] for match in _GBNF_WORD.finditer(grammar)}
    other = next(name for i in count() if (name := f"start{i}") not in names)

    def renamed(match: re.Match[str]) -> str:
        return other if match[1] == "start" else match[0]

    return _GBNF_WORD.sub(renamed, grammar)


def _check_size(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise GrammarError(f"it has {len(text)} characters, more than {MAX_CHARACTERS}")


def _explain(reason: str) -> str:
    """What llguidance says, in the words of those who sent the grammar."""
    if reason.startswith("NoExtension"):
        return "nothing matches it"
    if "coerce_one_of" in reason:  # an option of the library, which no client has
        return "oneOf whose branches may overlap cannot be enforced"
    if "max is" in reason:
        return f"too much may come next at one point, such as 500 properties ({_short(reason)})"
    return _short(reason)


def _short(reason: str) -> str:
    return " ".join(reason.split())[:_MAX_REASON]
