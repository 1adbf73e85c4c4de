"""What a message's content is made of: texts, refusals and thoughts, as several APIs write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from millstream.intake.fields.foreign_keys import PartKeys, PartNulls
from millstream.intake.strict_body import Body, tag


class ThoughtText(Body):
    """Mistral's form of a thought: texts in a list."""

    type: Literal["text"]
    text: str


class ContentPart(PartKeys, PartNulls):
    """A text, a refusal, which is the assistant's text as well, or what the assistant thought.

    A thought is in `thinking`, `reasoning` or `text`, as the programs that write it differ.
    """

    type: Literal["text", "input_text", "output_text", "refusal", "thinking", "reasoning"]
    text: str | None = None
    refusal: str | None = None
    thinking: (
        Annotated[
            Annotated[str, Tag("text")] | Annotated[list[ThoughtText], Tag("parts")],
            Discriminator(tag(of_list="parts", otherwise="text")),
        ]
        | None
    ) = None
    reasoning: str | None = None

    @property
    def is_thought(self) -> bool:
        return self.type in ("thinking", "reasoning")

    @property
    def said(self) -> str:
        """What it says, whichever member has it. To be asked after `check_messages()`."""
        if isinstance(self.thinking, list):
            return "".join(thought.text for thought in self.thinking)
        return self.text or self.refusal or self.thinking or self.reasoning or ""


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[ContentPart], Tag("parts")],
    Discriminator(tag(of_list="parts", otherwise="text")),
]
