"""How models mark their reasoning, a row for each way.

The patterns follow the rules of `call_formats`. A chat template that contains one of a row's
`signs` speaks that format; of several, the first row is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex

HARMONY_TYPE = r"\s*(?:<\|constrain\|>)?\w*<\|message\|>"
"""The end of a message's header, as gpt-oss writes it (https://github.com/openai/harmony)."""
HARMONY_NOISE = (
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:final|commentary)" + HARMONY_TYPE,
    r"<\|(?:end|return|call)\|>",
)


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """One way to mark reasoning.

    open, close: patterns around the reasoning. noise: patterns that are no text at all.
    markers: the texts that open and close it, where each of them is one text and no other.
    """

    name: str
    open: str
    close: str
    signs: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    markers: tuple[str, str] | None = None


def _between(name: str, opening: str, closing: str, *, sign: str) -> ReasoningFormat:
    """The format whose markers are these two texts."""
    patterns = regex.escape(opening), regex.escape(closing)
    return ReasoningFormat(name, *patterns, signs=(sign,), markers=(opening, closing))


REASONING_FORMATS = (
    _between("think", "<think>", "</think>", sign="</think>"),
    _between("magistral", "[THINK]", "[/THINK]", sign="[THINK]"),
    _between("seed", "<seed:think>", "</seed:think>", sign="</seed:think>"),
    ReasoningFormat(
        "harmony",
        r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>",
        r"<\|end\|>",
        ("<|channel|>",),
        noise=HARMONY_NOISE,
    ),
)
