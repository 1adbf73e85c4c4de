"""What an answer must look like: plain frozen data, made and checked before it gets here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """The form of an answer. Equal texts are compiled once.

    text: the grammar in llguidance's own notation.
    starts_after: the token that ends the reasoning. What comes before it is free, except that the
        answer cannot end there. None: there is no reasoning, the whole answer has this form.
    opens_with: the token that begins the reasoning, where the prompt has not begun it: the answer
        starts with this token, or with the form at once.
    """

    text: str
    starts_after: int | None = None
    opens_with: int | None = None
