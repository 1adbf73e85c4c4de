"""Which part of a prompt's text is whose token."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.text.raw_prompt import EncodedPrompt, decode_ids, encode_text

PIECES = ["hello", " world", "é", "👍🏽", "日本", "\n\n", "  ", "<end>", "\ufffd", "a", "\t"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)
ANY_TEXT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encode(tokenizer: Tokenizer, text: str, *, framed: bool = True) -> EncodedPrompt:
    return encode_text(tokenizer, text, add_special_tokens=framed, max_context=10_000)


def decode(tokenizer: Tokenizer, ids: tuple[int, ...]) -> EncodedPrompt:
    return decode_ids(tokenizer, ids, vocab_size=tokenizer.get_vocab_size(), max_context=10_000)


def slices(prompt: EncodedPrompt) -> list[str]:
    """What each token adds."""
    ends = [*prompt.starts[1:], len(prompt.text)]
    return [prompt.text[start:end] for start, end in zip(prompt.starts, ends, strict=True)]


def assert_whole(prompt: EncodedPrompt) -> None:
    """Every character is some token's, in order."""
    assert len(prompt.starts) == len(prompt.token_ids)
    assert prompt.starts[0] == 0
    assert list(prompt.starts) == sorted(prompt.starts)
    assert "".join(slices(prompt)) == prompt.text


def test_characters_are_those_of_the_token_that_completes_them(byte_tokenizer: Tokenizer) -> None:
    prompt = encode(byte_tokenizer, "hello é👍!<end>a")
    assert slices(prompt)[-9:] == ["", "é", "", "", "", "👍", "!", "<end>", "a"]
    assert "".join(slices(prompt)[:-9]) == "hello "
    assert_whole(prompt)


@ANY_TEXT
@given(TEXTS.filter(bool))
def test_text_and_its_ids_are_cut_alike(byte_tokenizer: Tokenizer, text: str) -> None:
    prompt = encode(byte_tokenizer, text)
    assert prompt.text == text
    assert_whole(prompt)
    decoded = decode(byte_tokenizer, prompt.token_ids)
    assert decoded.text == text
    assert_whole(decoded)
    # A replacement mark may be a cut character, until the next token says that it is none.
    assert "\ufffd" in text or decoded == prompt


@ANY_TEXT
@given(TEXTS.filter(bool))
def test_pieces_are_cut_whole(piece_tokenizer: Tokenizer, text: str) -> None:
    prompt = encode(piece_tokenizer, text)
    assert prompt.text == text
    assert_whole(prompt)
    assert_whole(decode(piece_tokenizer, prompt.token_ids))


def test_spaces_that_the_tokenizer_leaves_out_of_its_offsets(byte_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    text = "hello world  the fox "
    assert tokenizer.encode(text).offsets != byte_tokenizer.encode(text).offsets
    prompt = encode(tokenizer, text)
    assert_whole(prompt)
    assert prompt == encode(byte_tokenizer, text)


def test_tokens_around_the_text_are_none_of_it(byte_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("<end>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <end>", special_tokens=[("<s>", begin), ("<end>", end)]
    )
    plain = encode(tokenizer, "a👍", framed=False)
    framed = encode(tokenizer, "a👍")
    assert framed.token_ids == (begin, *plain.token_ids, end)
    assert framed.text == "a👍"
    assert slices(framed) == ["", *slices(plain), ""]
    assert encode(tokenizer, "") == ((begin, end), "", (0, 0))
    with pytest.raises(InvalidRequest) as caught:
        encode(tokenizer, "", framed=False)
    assert caught.value.param == "prompt"


def test_a_normalized_text_is_echoed_as_it_was_sent(byte_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    prompt = encode(tokenizer, " e\u0301x ")
    assert prompt.text == " e\u0301x "
    assert_whole(prompt)


def test_ids_of_a_cut_character_make_no_text(byte_tokenizer: Tokenizer) -> None:
    ids = encode(byte_tokenizer, "a👍").token_ids
    assert decode(byte_tokenizer, ids[:-1]).text == "a"
    assert_whole(decode(byte_tokenizer, ids[:-1]))


def test_what_is_no_prompt_is_refused(byte_tokenizer: Tokenizer) -> None:
    size = byte_tokenizer.get_vocab_size()
    for ids in ((), (size,), (1, 10**12, 2)):
        with pytest.raises(InvalidRequest) as caught:
            decode(byte_tokenizer, ids)
        assert caught.value.param == "prompt"
    assert decode(byte_tokenizer, (size - 1,)).token_ids == (size - 1,)


def test_a_text_far_too_long_is_not_tokenised(byte_tokenizer: Tokenizer) -> None:
    def encode_a(count: int) -> EncodedPrompt:
        return encode_text(byte_tokenizer, "a" * count, add_special_tokens=True, max_context=10)

    assert len(encode_a(640).token_ids) > 10
    with pytest.raises(ContextTooLong) as caught:
        encode_a(641)
    assert caught.value.param == "prompt"
