"""Events of the Responses API as they are sent: numbered, named, and all ASCII.

The number stands twice: in the data, where the API has it, and as the event's id, which browsers
send back as `Last-Event-ID`. An event is made of text, not of objects: what surrounds the text of a
token is made once for each item, and a token costs one escape and a concatenation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

escape = json.encoder.encode_basestring_ascii
"""A text as JSON."""


class Frames:
    """Makes the events of one answer. number: how many there are."""

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, fields: str) -> bytes:
        """An event. fields: its members beside type and number, as JSON without braces."""
        number = self.number
        self.number = number + 1
        return (
            f'id: {number}\nevent: {kind}\ndata: {{"type":"{kind}","sequence_number":{number},'
            f"{fields}}}\n\n"
        ).encode()

    def of_object(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """An event whose members are given as an object."""
        return self.event(kind, json_members(fields))


def json_members(fields: Mapping[str, Any]) -> str:
    """An object as JSON, without its braces and without blanks."""
    return json.dumps(fields, separators=(",", ":"))[1:-1]
