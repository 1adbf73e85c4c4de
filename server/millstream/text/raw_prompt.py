"""A prompt that no chat template writes: text, or the token ids of one.

Rules: what the client sent is read as it is. Echoed, a text is the text that was sent, and ids are
the text they make, special tokens included; each character belongs to the token that completes it.
Encoding takes time in proportion to the text, so callers do it in a worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from tokenizers import Tokenizer

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.text.detokenizer import Detokenizer
from millstream.text.encoding import encode

_MAX_PIECES_PER_TOKEN = 4  # with room for templates that write no heads
_MAX_CHARACTERS_PER_TOKEN = 64  # no tokenizer packs more into a token on average
_USUAL_CHARACTERS_PER_TOKEN = 4


class EncodedPrompt(NamedTuple):
    """token_ids: at least one. text: as it is echoed. starts: where in it each token begins.

    One that does not fit the context need not have the last two.
    """

    token_ids: tuple[int, ...]
    text: str
    starts: tuple[int, ...]


def check_characters(text: str, *, max_context: int, field: str) -> None:
    """Raises ContextTooLong for a text that is not worth tokenising: it cannot fit.

    field: the one of the request that the text was made of, "prompt" or "messages".
    """
    if len(text) > _MAX_CHARACTERS_PER_TOKEN * max_context:
        has = "has" if field == "prompt" else "have"
        raise ContextTooLong(
            f"The {field} {has} {len(text)} characters, far more than this model's context of "
            f"{max_context} tokens. Shorten the {field}.",
            param=field,
            num_tokens=len(text) // _USUAL_CHARACTERS_PER_TOKEN,
            limit=max_context - 1,
        )


def check_pieces(count: int, *, max_context: int) -> None:
    """Raises ContextTooLong for a conversation that is not worth rendering: it cannot fit.

    count: its messages, parts and calls, each of which a template writes a token for, if not more.
    """
    if count > _MAX_PIECES_PER_TOKEN * max_context:
        raise ContextTooLong(
            f"The messages have {count} messages, parts and calls, far more than this model's "
            f"context of {max_context} tokens. Shorten the messages.",
            param="messages",
            num_tokens=count,
            limit=max_context - 1,
        )


def encode_text(
    tokenizer: Tokenizer,
    text: str,
    *,
    add_special_tokens: bool,
    max_context: int,
    keep_last: int | None = None,
) -> EncodedPrompt:
    """The tokens of a text. add_special_tokens: whether the tokenizer adds what it puts around one.
    keep_last: at most so many tokens are wanted, and what comes before them is dropped.

    Raises ContextTooLong for a text that is far longer than the context (over 64 characters for
    each token), and InvalidRequest for one that makes no token.
    """
    if keep_last is None:
        check_characters(text, max_context=max_context, field="prompt")
    encoding = encode(tokenizer, text, param="prompt", add_special_tokens=add_special_tokens)
    if not len(encoding):
        raise InvalidRequest("prompt: an empty text, with nothing that begins it", param="prompt")
    end = len(encoding)
    begin = 0 if keep_last is None else max(end - keep_last, 0)
    token_ids = tuple(encoding.ids[begin:])
    if end - begin > max_context:
        return EncodedPrompt(token_ids, text, ())
    # Not `offsets`, which keeps the interpreter until all of them are made.
    spans = (encoding.token_to_chars(token) for token in range(end))
    starts = _starts(span or (0, 0) for span in spans)[begin:]
    dropped = starts[0] if begin else 0
    return EncodedPrompt(token_ids, text[dropped:], tuple(start - dropped for start in starts))


def decode_ids(
    tokenizer: Tokenizer, token_ids: Sequence[int], *, vocab_size: int, max_context: int
) -> EncodedPrompt:
    """The text of token ids. Raises InvalidRequest for none, or one that the model lacks."""
    if not token_ids:
        raise InvalidRequest("prompt: a list without token ids", param="prompt")
    if max(token_ids) >= vocab_size:
        raise InvalidRequest(
            f"prompt: {max(token_ids)} is not a token of this model, which has {vocab_size}",
            param="prompt",
        )
    if len(token_ids) > max_context:
        return EncodedPrompt(tuple(token_ids), "", ())
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
    pieces = [detokenizer.push(token) for token in token_ids]
    rest = detokenizer.flush()
    starts = accumulate(map(len, pieces[:-1]), initial=0)
    return EncodedPrompt(tuple(token_ids), "".join(pieces) + rest, tuple(starts))


def _starts(offsets: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """The character at which each token's text begins, so that every character is some token's.

    offsets: the tokenizer's. They leave out spaces, repeat a character for each of its tokens, and
    are (0, 0) for tokens that are not in the text.
    """
    starts: list[int] = []
    begin = end = 0
    for first, last in offsets:
        begin = max(begin, min(end, first) if last > first else end)
        end = max(end, last)
        starts.append(begin)
    return tuple(starts)
