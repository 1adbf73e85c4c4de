"""Stop strings under every way to cut the text."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from millstream.text.stops import StopMatcher


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = [matcher.push(piece) for piece in pieces]
    if not matcher.is_stopped:
        shown.append(matcher.flush())
    return "".join(shown), matcher.is_stopped


def reference(stops: list[str], text: str) -> tuple[str, bool]:
    """The definition: read character by character, stop at the first end of a match."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def cuts(text: str) -> list[list[str]]:
    """Every way to cut a text into consecutive pieces."""
    ways = []
    for marks in itertools.product([False, True], repeat=len(text) - 1):
        pieces, start = [], 0
        for index, is_cut in enumerate(marks, 1):
            if is_cut:
                pieces.append(text[start:index])
                start = index
        ways.append([*pieces, text[start:]])
    return ways


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (["END"], "xyENDz"),
        (["END"], "xEENEND"),
        (["abcd", "bc"], "xabcdy"),
        (["aab"], "aaaab!"),
        (["\n\n", "\n#"], "a\n\nb\n#"),
        (["nope"], "nonope"),
        (["ab", "abc"], "zabc"),
        (["stop"], "sto"),
    ],
)
def test_every_cut_gives_the_same(stops: list[str], text: str) -> None:
    expected = reference(stops, text)
    for pieces in cuts(text):
        assert run(stops, pieces) == expected, pieces


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.text("abc", max_size=5), max_size=6),
)
def test_random_cuts_equal_the_definition(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == reference(stops, "".join(pieces))


def exempt_reference(
    stops: list[str], pieces: list[tuple[str, bool]], *, include_stop: bool
) -> tuple[str, bool]:
    """The same definition with pieces in which no match may end, and stop strings shown."""
    text = ""
    for piece, can_stop in pieces:
        for letter in piece:
            text += letter
            found = [stop for stop in stops if can_stop and text.endswith(stop)]
            if found:
                return (text if include_stop else text[: -max(map(len, found))]), True
    return text, False


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.tuples(st.text("abc", max_size=4), st.booleans()), max_size=6),
    st.booleans(),
)
def test_exempt_text_is_no_place_for_a_match_to_end(
    stops: list[str], pieces: list[tuple[str, bool]], include_stop: bool
) -> None:
    matcher = StopMatcher(stops, include_stop=include_stop)
    text = "".join(matcher.push(piece, can_stop=can_stop) for piece, can_stop in pieces)
    if not matcher.is_stopped:
        text += matcher.flush()
    expected = exempt_reference(stops, pieces, include_stop=include_stop)
    assert (text, matcher.is_stopped) == expected


def test_a_match_may_begin_in_exempt_text() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("END EN", can_stop=False) == "END "
    assert matcher.push("D") == ""
    assert matcher.is_stopped


def test_only_what_may_become_a_match_is_held() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("a long text E") == "a long text "
    assert matcher.push("x") == "Ex"
    assert matcher.push("EN") == ""
    assert matcher.flush() == "EN"


def test_nothing_follows_a_match() -> None:
    matcher = StopMatcher(["."])
    assert matcher.push("one. two") == "one"
    assert matcher.push(" three") == ""
    assert matcher.flush() == ""
