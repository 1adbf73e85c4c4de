"""Single tokens: their bytes are exact, whatever kind of tokenizer they come from."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from millstream.text.vocabulary import Vocabulary, _byte_alphabet

TEXT = "hello wörld, 日本 👍🏽!\n\t\x00"


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def test_the_byte_alphabet_is_that_of_the_library() -> None:
    letters = _byte_alphabet()
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(letters.values()) == list(range(256))


def test_bytes_of_byte_level_tokens_join_to_the_text(byte_tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(byte_tokenizer)
    raw = b"".join(vocabulary[token].raw for token in ids_of(byte_tokenizer, TEXT))
    assert raw == TEXT.encode()


def test_every_byte_has_its_token(byte_tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(byte_tokenizer)
    size = byte_tokenizer.get_vocab_size()
    single = {vocabulary[token].raw for token in range(size) if len(vocabulary[token].raw) == 1}
    assert single == {bytes([byte]) for byte in range(256)}


def test_parts_of_characters_are_told_apart(byte_tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(byte_tokenizer)
    parts = [vocabulary[token] for token in ids_of(byte_tokenizer, "é")]
    assert [part.raw for part in parts] == [b"\xc3", b"\xa9"]
    assert [part.text for part in parts] == ["\\xc3", "\\xa9"]


def test_pieces_have_their_space_and_bytes(piece_tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(piece_tokenizer)
    token_of = piece_tokenizer.get_vocab()
    assert vocabulary[token_of["▁hello"]] == (" hello", b" hello")
    assert vocabulary[token_of["hello"]] == ("hello", b"hello")
    assert vocabulary[token_of["<0x0A>"]] == ("\n", b"\n")
    assert vocabulary[token_of["<0xE6>"]] == ("\\xe6", b"\xe6")


def test_special_tokens_and_strangers(byte_tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(byte_tokenizer)
    assert vocabulary[0] == ("<end>", b"<end>")
    assert vocabulary.is_special(0)
    assert not vocabulary.is_special(5)
    assert vocabulary[10**6] == ("", b"")


def test_tokenizers_without_a_decoder_work() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "cat": 1, "<0x41>": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert tokenizer.decoder is None
    assert Vocabulary(tokenizer)[1].text.strip() == "cat"
    # Without the decoder for them, what looks like a byte is text.
    assert Vocabulary(tokenizer)[2].raw.strip() == b"<0x41>"
    tokenizer.decoder = decoders.WordPiece()
    assert Vocabulary(tokenizer)[1].raw == b" cat"


def test_a_word_at_the_beginning_and_after_a_space(byte_tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary(byte_tokenizer)
    (hello,) = ids_of(byte_tokenizer, "hello")
    plain, spaced = vocabulary.sequences("hello")
    assert plain == (hello,)
    assert byte_tokenizer.decode(list(spaced)) == " hello"
    # With a space of its own, a word is only meant in one way.
    assert vocabulary.sequences(" hello") == (spaced,)
