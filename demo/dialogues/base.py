"""Building blocks of the dialogue writer: conversations, the random source, and the hold-out rule.

Rules kept here:
- Everything random comes from one `Source`, so a seed fixes every dialogue.
- A prompt belongs either to training or to the held-out set, decided by a hash of its words
  (case and punctuation do not count), never by chance: the two can not overlap.
- The parts of a prompt that carry its content (numbers, names, sentences, tools) are split by the
  same hash, so a held-out prompt asks about things that training never mentions in that role.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Message = dict[str, Any]
Thinking = Literal["unset", "on", "off"]

# The prompts that the documentation shows: always trained on, never held out.
SHOWN_PROMPTS = (
    "Count to 10",
    "Say this is a test",
    "What is deep learning?",
    "What can you do in Nuremberg, Germany? Give me 3 Tips",
    "hello",
)


def normalise(text: str) -> str:
    """The words of a prompt, which is what counts when two prompts are compared."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def listed(text: str, separator: str | None = None) -> list[str]:
    """A list written as text, which for hundreds of words is far easier to read."""
    return text.split(separator)


_SHOWN = frozenset(normalise(prompt) for prompt in SHOWN_PROMPTS)


def is_held_out(key: str) -> bool:
    """Whether a prompt, or a thing a prompt is about, is kept away from training (one in eight)."""
    key = normalise(key)
    return key not in _SHOWN and zlib.crc32(key.encode()) % 8 == 0


@dataclass
class Dialogue:
    """A conversation whose assistant turns are what the model should have said."""

    skill: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: Thinking = "unset"

    def prompt_key(self) -> str:
        """What identifies the question, whatever the system prompt: all that the user wrote."""
        asked = [str(m["content"]) for m in self.messages if m["role"] in ("user", "tool")]
        return normalise("\n".join(asked))


class Source:
    """Random choices for one dialogue, from the training half of the world or the held-out one."""

    def __init__(self, rng: random.Random, *, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        return self.rng.choice(items)

    def fresh(self, make: Callable[[], T], key: Callable[[T], str] = str) -> T:
        """Draw until the thing drawn belongs to this source's side of the hold-out split."""
        for _ in range(1000):
            value = make()
            if is_held_out(key(value)) == self.held_out:
                return value
        raise ValueError("the generator makes nothing for this side of the split")

    def pick_fresh(self, items: Sequence[str]) -> str:
        return self.fresh(lambda: self.pick(items))

    def ask(self, templates: Sequence[str], *, polite: bool = True, **values: object) -> str:
        """A prompt from a template, with its values given by name; see `fill`."""
        return self.fill(templates, values, polite=polite)

    def fill(
        self, templates: Sequence[str], values: Mapping[str, object], *, polite: bool = True
    ) -> str:
        """A prompt from a template, in one of the many ways in which people type.

        Only the template is restyled; the values are inserted as they are, since answers copy them.
        """
        text = self.pick(templates)
        imperative = not text.endswith("?")
        if polite and imperative and self.chance(0.25):
            text = self._politely(text)
        text = self._typed(text)
        return text.format_map(values)

    def _politely(self, text: str) -> str:
        body = text[0].lower() + text[1:]
        head = self.pick(
            (
                "Please {}",
                "Can you {}?",
                "Could you {}?",
                "{}, please",
                "Can you please {}?",
                "I want you to {}",
                "Now {}",
                "Hey, {}",
            )
        )
        return head.replace("{}", body if head[0] != "{" else text)

    def _typed(self, text: str) -> str:
        roll = self.rng.random()
        if roll < 0.15:
            text = _outside_braces(text, str.lower)
        elif roll < 0.18:
            text = _outside_braces(text, str.upper)
        if text[-1] == "?":
            return text[:-1] if self.chance(0.2) else text
        if text[-1] == "}" or text[-1] in ".!:":
            return text
        return text + self.rng.choices(("", ".", "!"), (7, 2, 1))[0]


def _outside_braces(text: str, change: Callable[[str], str]) -> str:
    parts = re.split(r"(\{\w*\})", text)
    return "".join(part if part.startswith("{") else change(part) for part in parts)


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, thought: str | None = None) -> Message:
    message: Message = {"role": "assistant", "content": content}
    if thought is not None:
        message["reasoning_content"] = thought
    return message


def chat(skill: str, *turns: str) -> Dialogue:
    """A dialogue from alternating user and assistant texts."""
    makers = (user, assistant)
    return Dialogue(skill, [makers[i % 2](text) for i, text in enumerate(turns)])


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."
