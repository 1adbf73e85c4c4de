"""Texts in `encrypted_content`, for clients that keep nothing else of an item.

Nothing is secret about them: the client has shown or may show the same text. The field is opaque to
clients, so what stands in it is a mark, then the text compressed.
"""

from __future__ import annotations

import base64
import binascii
import zlib

_MARK = "ms1."
_MAX_BYTES = 32 << 20
"""Bytes that a text may have: a few hundred bytes could claim to be gigabytes."""


class NotSealedHere(ValueError):
    """What no server of this kind has made, or what was damaged since."""


def encode_reasoning(text: str) -> str:
    """The text as `encrypted_content`."""
    packed = zlib.compress(text.encode("utf-8", "surrogatepass"))
    return _MARK + base64.urlsafe_b64encode(packed).decode("ascii")


def decode_reasoning(sealed: str) -> str:
    """The text that was encoded. Raises NotSealedHere."""
    if not sealed.startswith(_MARK):
        raise NotSealedHere("another server has made it")
    try:
        packed = base64.b64decode(sealed[len(_MARK) :], altchars=b"-_", validate=True)
        inflater = zlib.decompressobj()
        text = inflater.decompress(packed, _MAX_BYTES)
        if not inflater.eof or inflater.unused_data:
            raise NotSealedHere("it is damaged")
        return text.decode("utf-8", "surrogatepass")
    except (binascii.Error, zlib.error, ValueError) as error:
        raise NotSealedHere("it is damaged") from error
