"""Text comes out whole: no character is cut, nothing is lost, nothing is invented."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from tokenizers import Tokenizer

from millstream.text.detokenizer import Detokenizer

SAMPLES = [
    "hello world",
    "naïve café — “quotes”",
    "日本語のテキスト。漢字",
    "👩‍👩‍👧‍👦 family, 🇩🇪 flag, 👍🏽 tone",
    "e\u0301 combining, a\u0308\u0323",
    "עברית العربية हिन्दी",
    "line\nbreak\ttab  two spaces ",
    "\u2028 separator, nul \x00, bell \x07",
]


def pieces(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt or [])
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("text", SAMPLES)
def test_bytes_join_to_the_text(byte_tokenizer: Tokenizer, text: str) -> None:
    parts = pieces(byte_tokenizer, encode(byte_tokenizer, text))
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30))
def test_any_text_survives(byte_tokenizer: Tokenizer, text: str) -> None:
    assert "".join(pieces(byte_tokenizer, encode(byte_tokenizer, text))) == text


@pytest.mark.parametrize("text", SAMPLES)
def test_cut_anywhere_gives_a_beginning_of_the_text(byte_tokenizer: Tokenizer, text: str) -> None:
    ids = encode(byte_tokenizer, text)
    for end in range(len(ids)):
        assert text.startswith("".join(pieces(byte_tokenizer, ids[:end])))


def test_replacement_mark_that_the_model_said_stays(byte_tokenizer: Tokenizer) -> None:
    for text in ("a\ufffd", "\ufffd", "a\ufffdb"):
        assert "".join(pieces(byte_tokenizer, encode(byte_tokenizer, text))) == text


def test_endless_broken_bytes_are_delivered_not_held(byte_tokenizer: Tokenizer) -> None:
    broken = encode(byte_tokenizer, "é")[:1] * 100
    detokenizer = Detokenizer(byte_tokenizer)
    longest = since = 0
    for token in broken:
        since = 0 if detokenizer.push(token) else since + 1
        longest = max(longest, since)
    assert longest <= 13


def test_special_tokens_are_no_text(byte_tokenizer: Tokenizer) -> None:
    end = byte_tokenizer.token_to_id("<end>")
    ids = encode(byte_tokenizer, "hello")
    assert "".join(pieces(byte_tokenizer, [*ids, end, *ids])) == "hellohello"


def test_leading_space_follows_the_prompt(piece_tokenizer: Tokenizer) -> None:
    world = piece_tokenizer.token_to_id("▁world")
    hello = piece_tokenizer.token_to_id("▁hello")
    assert "".join(pieces(piece_tokenizer, [world, world], prompt=[hello])) == " world world"


@pytest.mark.parametrize("text", ["hello 日本 world!", "👍🏽 hello", "é è"])
def test_byte_fallback_joins_to_the_text(piece_tokenizer: Tokenizer, text: str) -> None:
    ids = encode(piece_tokenizer, text)
    parts = pieces(piece_tokenizer, ids)
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)
