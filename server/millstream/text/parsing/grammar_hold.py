"""How much of an answer a grammar sees to."""

from __future__ import annotations

from enum import IntEnum, auto


class GrammarHold(IntEnum):
    """How much of an answer a grammar sees to, so that the parser need not doubt it."""

    NOTHING = auto()
    CALLS = auto()  # calls are valid, what stands before them is free
    ANSWER = auto()  # after its reasoning, the answer is calls, or text of a form
    EITHER = auto()  # the same, but which of the two is for the model to choose

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer has a form, but for reasoning at its beginning."""
        return self in (GrammarHold.ANSWER, GrammarHold.EITHER)
