"""Lark grammars that are patterns, and those that are not."""

from __future__ import annotations

import json
import re

import pytest

from millstream.intake.responses.lark_patterns import MAX_CHARACTERS, NotRegular, pattern_of_lark
from millstream.text.grammars.answer_formats import GrammarChecker, json_grammar

APPLY_PATCH = """\
start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"""
PATCH = '*** Begin Patch\n*** Add File: a.txt\n+say "hi"\n*** End Patch\n'
MOVED = "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@ f\n-x\n+y\n*** End Patch"


@pytest.mark.parametrize(
    ("grammar", "right", "wrong"),
    [
        (APPLY_PATCH, [PATCH, MOVED], ["", PATCH[:-13], PATCH.replace("+say", "say"), "x" + PATCH]),
        ('start: "a" | "b" "c"', ["a", "bc"], ["ac", "abc", ""]),
        ('start: ("a" | "b") "c"', ["ac", "bc"], ["a"]),
        ('start: "a"\n  | "b"', ["a", "b"], ["ab"]),
        ('start: A~2 B~1..3\nA: "a"\nB: "b"', ["aab", "aabbb"], ["ab", "aabbbb"]),
        ('start: ["a"] "b"?', ["", "a", "ab"], ["ba"]),
        ('start: "AB"i /c\\/d/i', ["abC/d", "ABc/D"], ["ab"]),
        ('start: "a".."c"+', ["abc"], ["d"]),
        ('?start: _x // said\n!_x.2: "x" # so', ["x"], ["_x"]),
        (
            "start: INT WS_INLINE N\n%import common (INT, WS_INLINE)\n%import common.WORD -> N",
            ["1 a"],
            ["a"],
        ),
        (r'start: "\n\"\\." "#" "//"', ['\n"\\.#//'], []),
    ],
)
def test_a_grammar_whose_rules_do_not_meet_themselves(
    grammar: str, right: list[str], wrong: list[str]
) -> None:
    pattern = pattern_of_lark(grammar)
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    for text in right:
        assert re.fullmatch(pattern[1:-1], text)
    for text in wrong:
        assert not re.fullmatch(pattern[1:-1], text)


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        "other: x",
        "start: start",
        'start: "a" b\nb: "b" start?',
        "start: nothing",
        'start: "a',
        'start: ("a"',
        'start: "a")',
        'start: ["a")',
        "start: ?",
        'start: "a"..',
        'start: "ab".."c"',
        r'start: "\x"',
        "start: a{b}",
        'start: "a"\n%ignore " "',
        "start: X\n%import common.NO_SUCH",
        "start: X\n%import python.NAME -> X",
        "start: " + "(" * 50_000,
        "start: " + '"a" ' * 20_000,
        "start: a0\n" + "".join(f"a{n}: a{n + 1} a{n + 1}\n" for n in range(14)) + 'a14: "x"',
    ],
)
def test_a_grammar_that_no_pattern_says(grammar: str) -> None:
    with pytest.raises(NotRegular):
        pattern_of_lark(grammar)
    assert MAX_CHARACTERS < 20_000


def test_the_patch_of_codex_is_enforced_within_a_json_string() -> None:
    held = {"type": "string", "pattern": pattern_of_lark(APPLY_PATCH)}
    grammar = json_grammar({"type": "object", "properties": {"input": held}})
    GrammarChecker().check(grammar)
    assert json.loads(grammar)
