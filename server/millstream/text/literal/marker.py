"""Puts a mark into what of a text could be read as markup, alone or with what stands beside it.

A template writes texts next to one another and next to its own: two parts of a message, `<|im_` and
`end|>`, or `<` and the name of a parameter, `|im_end|`, and `>`. So the edges of a text count, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from millstream.text.literal.any_of import any_of

_NEVER = "(?!)"


class Marker:
    """Marks texts. tokens: the markup. source: of the template, which compares texts with those
    words that it has in quotes, as `string` or `function`; these are left alone."""

    def __init__(self, tokens: Collection[str], *, source: str, mark: str) -> None:
        self._mark = mark
        self._starts = re.compile(f"(?={any_of(tokens) or _NEVER})")
        self._ends = frozenset(text[at:] for text in tokens for at in range(1, len(text)))
        self._beginnings = frozenset(text[:at] for text in tokens for at in range(1, len(text)))
        self._insides = "\0".join(text[1:-1] for text in tokens)
        self._longest = max(map(len, tokens), default=0)
        self._words = frozenset(re.findall(r"""(?<=["'.])\w+""", source))

    def marked(self, text: str) -> str:
        """The text with marks: behind the first letter of markup that is all there, also within
        another one, and at an edge where some of it is."""
        places = [match.start() + 1 for match in self._starts.finditer(text)]
        if text and text not in self._words:
            if self._may_go_on(text):
                places.insert(0, 0)
            if self._may_begin(text):
                places.append(len(text))
        if not places:
            return text
        edges = zip([0, *places], [*places, len(text)], strict=True)
        return self._mark.join(text[begin:end] for begin, end in edges)

    def _may_go_on(self, text: str) -> bool:
        """Whether the text could be the rest of what is begun before it, or something within."""
        lengths = range(1, min(len(text), self._longest) + 1)
        if any(text[:length] in self._ends for length in lengths):
            return True
        return len(text) < self._longest and text in self._insides

    def _may_begin(self, text: str) -> bool:
        """Whether the text could begin what is gone on with after it."""
        lengths = range(1, min(len(text), self._longest) + 1)
        return any(text[-length:] in self._beginnings for length in lengths)
