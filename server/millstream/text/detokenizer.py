"""From token ids to text, one token at a time.

Rules:
1. Text is whole: a character that several tokens make is delivered when its last one arrives.
2. The pieces, joined with the flushed rest, are the text of all tokens.
3. A character cut off by the end of the answer is dropped: its replacement mark (U+FFFD) is
   nothing the model said. A mark that the model did say stays.

A token need not be text: byte-level tokenizers cut characters into several tokens, and some put or
drop a space by what stands before. So tokens are decoded in the context of the few before them, and
those that make no whole character yet are pending. `DecodeStream` of the tokenizers package does
this in Rust; what is written here is the beginning, the end, and the way out where it gives up.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from millstream.errors import InvalidRequest
from millstream.text.encoding import encode

_REPLACEMENT = "\ufffd"
_MAX_PENDING = 12
_CONTEXT = 8


class Detokenizer:
    """The text of one answer. `tokenizer` is shared and only read.

    prompt: ids before the answer; its end decides, for some tokenizers, how the answer starts.
    skip_special_tokens: special tokens are no text.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Iterable[int] = (), *, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._context = list(prompt)[-_CONTEXT:]
        self._pending_ids: list[int] = []
        self._stream = self._restart()

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        try:
            piece = self._stream.step(self._tokenizer, token_id)
        except Exception:  # tokenizers raises its one untyped exception ("Invalid prefix ...")
            self._pending_ids.append(token_id)
            return self.flush()
        self._pending_ids.append(token_id)
        if piece is None:
            # Bytes that no character starts with would be held for ever.
            return self._release() if len(self._pending_ids) > _MAX_PENDING else ""
        self._settle()
        return piece

    def flush(self) -> str:
        """The text of pending tokens at the end of the answer, without a cut-off character."""
        if not self._pending_ids:
            return ""
        text, pending = self._pending_text(), self._pending_ids
        if text.endswith(_REPLACEMENT) and self._encode(text) != pending:
            text = text.rstrip(_REPLACEMENT)
        self._settle()
        self._stream = self._restart()
        return text

    def _release(self) -> str:
        text = self._pending_text()
        self._settle()
        self._stream = self._restart()
        return text

    def _pending_text(self) -> str:
        before = self._decode(self._context)
        text = self._decode(self._context + self._pending_ids)
        return text[len(before) :] if text.startswith(before) else self._decode(self._pending_ids)

    def _settle(self) -> None:
        self._context += self._pending_ids
        del self._context[:-_CONTEXT]
        self._pending_ids = []

    def _restart(self) -> DecodeStream:
        return DecodeStream(ids=self._context, skip_special_tokens=self._skip_special_tokens)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip_special_tokens)
        return text

    def _encode(self, text: str) -> list[int] | None:
        """The text's tokens; None if the tokenizer cannot read it, though it wrote it."""
        try:
            return encode(self._tokenizer, text, param="").ids
        except InvalidRequest:
            return None
