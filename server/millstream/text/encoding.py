"""The tokenizer, asked so that nobody else has to wait, and its failures told as refusals.

`Tokenizer.encode()` and `decode()` keep Python's interpreter for the whole text, seconds for the
longest body; their batch forms, which give the same, let others run. What a tokenizer's pattern
cannot do with a text (it gives up after too many tries) is a panic of native code, which Python
sees as a BaseException.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from millstream.errors import InvalidRequest, is_library_failure

_MAX_REASON = 200


def encode(
    tokenizer: Tokenizer, text: str, *, param: str, add_special_tokens: bool = False
) -> Encoding:
    """What the tokenizer makes of a text. param: the field of the request that has it.

    Raises InvalidRequest if it can make nothing of it.
    """
    try:
        return tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)[0]
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise InvalidRequest(
            f"{param}: the model's tokenizer cannot read this text: {str(error)[:_MAX_REASON]}",
            param=param,
        ) from error


def decode(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """The text of tokens, special ones included."""
    return tokenizer.decode_batch([token_ids], skip_special_tokens=False)[0]
