"""What single tokens are: their text, their exact bytes, and the tokens of a word.

Rules: the bytes of a token are exact also where it is only a part of a character. Its text then is
a notation of those bytes (`\\xf0\\x9f`), as OpenAI writes it, so that such tokens differ.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tokenizers import Tokenizer

from millstream.text.encoding import encode

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenText(NamedTuple):
    """A token on its own, as it is in the middle of a text."""

    text: str
    raw: bytes


class Vocabulary:
    """Looks tokens up in a tokenizer, which is shared and only read; remembers what it found."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.get_added_tokens_decoder()
        decoder = b"" if tokenizer.decoder is None else tokenizer.decoder.__getstate__()
        self._bytes_of_letter = _byte_alphabet() if b'"ByteLevel"' in decoder else {}
        self._has_byte_pieces = b'"ByteFallback"' in decoder
        # Something to stand before a token, because decoders may treat the first one differently.
        self._anchor = self._encode("a")[-1:]
        self._anchor_text = tokenizer.decode(self._anchor)
        self._known: dict[int, TokenText] = {}

    def __getitem__(self, token_id: int) -> TokenText:
        """Any id; one the tokenizer does not have is empty."""
        found = self._known.get(token_id)
        if found is None:
            found = self._known[token_id] = self._look_up(token_id)
        return found

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a mark, which is no text unless special tokens are to be shown."""
        added = self._added.get(token_id)
        return added is not None and added.special

    def sequences(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The ways a bad word can stand in a text, as tokens: at the beginning, and after a space.

        Raises InvalidRequest for one that the tokenizer cannot read.
        """
        ways = (tuple(self._encode(word)), tuple(self._encode(" " + word.lstrip())))
        return tuple(dict.fromkeys(way for way in ways if way))

    def _look_up(self, token_id: int) -> TokenText:
        raw = self._raw(token_id)
        try:
            return TokenText(raw.decode(), raw)
        except UnicodeDecodeError:
            return TokenText("".join(f"\\x{byte:02x}" for byte in raw), raw)

    def _raw(self, token_id: int) -> bytes:
        if token_id in self._added:
            content: str = self._added[token_id].content
            return content.encode()
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:
            return b""
        if self._bytes_of_letter and all(letter in self._bytes_of_letter for letter in piece):
            return bytes(self._bytes_of_letter[letter] for letter in piece)
        if self._has_byte_pieces and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes.fromhex(match[1])
        text: str = self._tokenizer.decode([*self._anchor, token_id], skip_special_tokens=False)
        return text.removeprefix(self._anchor_text).encode()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = encode(self._tokenizer, text, param="bad_words").ids
        return ids


def _byte_alphabet() -> dict[str, int]:
    """From the letters that byte-level tokenizers write for bytes (GPT-2) back to the bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}
