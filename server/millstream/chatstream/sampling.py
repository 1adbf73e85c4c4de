"""How answers are drawn: ChatStream's parameters as options of the engine, and each visit's own.

Rules: what a visitor has set is kept with their history, as text; a value out of its range is
refused in ChatStream's words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millstream.errors import InvalidRequest

_ZERO = 1e-4  # a temperature below takes the most probable token
_RANGES = {"temperature": (0.0, 1.0), "top_k_value": (1, 500), "top_p_value": (0.0, 1.0)}
_WORDS = {"top_k_value": "top_k", "top_p_value": "top_p"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The defaults of one ChatStream."""

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    max_new_tokens: int

    def merged(self, facts: Mapping[str, str]) -> dict[str, float | None]:
        """The defaults with what a visitor has set, as ChatStream shows them."""
        shown: dict[str, float | None] = {
            "temperature": self.temperature,
            "top_k_value": self.top_k,
            "top_p_value": self.top_p,
        }
        for name in shown:
            if name in facts:
                shown[name] = int(facts[name]) if name == "top_k_value" else float(facts[name])
        return shown

    def options(self, facts: Mapping[str, str], *, chance: random.Random | None) -> dict[str, Any]:
        """Keywords for the engine. chance: where seeds come from, if answers are to come again."""
        merged = self.merged(facts)
        temperature, top_p = merged["temperature"] or 0.0, merged["top_p_value"]
        if top_p == 0:  # of which only the most probable token is left
            temperature, top_p = 0.0, 1.0
        return {
            "temperature": temperature if temperature >= _ZERO else 0,
            "top_k": merged["top_k_value"] or 0,
            "top_p": 1.0 if top_p is None else top_p,
            "repetition_penalty": self.repetition_penalty or 1.0,
            "max_tokens": self.max_new_tokens,
            "seed": None if chance is None else chance.getrandbits(31),
        }


def checked_params(body: Mapping[str, Any]) -> dict[str, str]:
    """What a visitor sets, as text. Raises InvalidRequest for what ChatStream refuses."""
    facts = {}
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        kinds = int if name == "top_k_value" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise InvalidRequest(
                f"Invalid {_WORDS.get(name, name)} value. {name[0].upper()}{name[1:]} should be "
                f"between {low} and {high}.",
                param=name,
            )
        facts[name] = repr(value)
    unknown = sorted(set(body) - set(_RANGES))
    if unknown:
        raise InvalidRequest(f"{unknown[0]} is not known", param=unknown[0])
    return facts
