"""What one row of the table of hints is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Api = Literal["responses", "messages"]
JsonKind = Literal["boolean", "integer", "object", "list", "text", "anything"]

_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "object": (dict,),
    "list": (list,),
    "text": (str,),
    "anything": (object,),
}
EXAMPLES: dict[JsonKind, Any] = {
    "boolean": True,
    "integer": 3,
    "object": {"a": "b"},
    "list": ["a"],
    "text": "a",
    "anything": {"a": ["b"]},
}
"""A value of each kind, as tests send it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One row.

    field: a path in the body; `[]` stands for every place of a list, `header` begins a header's.
    values: those that are taken, where "web*" is any text that begins so, or the kind of JSON of
    which any is taken. Null always is.
    sent_by: programs that send it. meaning: what becomes of it here.
    """

    api: Api
    field: str
    values: tuple[Any, ...] | JsonKind
    sent_by: str
    meaning: str

    def takes(self, value: Any) -> bool:
        if value is None:
            return True
        if isinstance(self.values, str):
            is_number = self.values == "integer" and isinstance(value, bool)
            return isinstance(value, _TYPES[self.values]) and not is_number
        return any(_is(value, taken) for taken in self.values)

    @property
    def examples(self) -> list[Any]:
        """Values that are taken."""
        if isinstance(self.values, str):
            return [EXAMPLES[self.values]]
        return [value.rstrip("*") if isinstance(value, str) else value for value in self.values]


def _is(value: Any, taken: Any) -> bool:
    if isinstance(taken, str) and taken.endswith("*"):
        return isinstance(value, str) and value.startswith(taken[:-1])
    return bool(value == taken) and isinstance(value, bool) == isinstance(taken, bool)
