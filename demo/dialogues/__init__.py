"""The dialogue writer: an endless, seeded stream of conversations that teach the demo model.

Each module writes one kind of conversation; this one mixes them, adds system prompts, and keeps the
training stream and the held-out prompts apart (see `base`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count

from .base import Dialogue, Source, is_held_out
from .calendar import calendar, list_then_backwards
from .counting import counting, counting_then_backwards
from .facts import facts
from .memory import told_name, told_thing, untold_name
from .repeating import repeating, repeating_follow_up, repeating_numbers, repeating_often
from .series import name_after_tasks, series
from .smalltalk import greeting
from .sums import sum_follow_up, sums
from .thinking import thinking, thinking_shortly
from .tools import no_tool_needed, tool_call, tool_result
from .unknown import unknown

__all__ = ["MIX", "SKILLS", "Dialogue", "held_out_dialogue", "training_dialogues"]

Writer = Callable[[Source], Dialogue]

# Each writer with its weights at four points of training: the start, where the start is heading,
# and two later mixes. Copying comes first and gets most, because everything that repeats names,
# values or results is built on it; numbers are learned last and get most at the end.
MIX: tuple[tuple[Writer, float, float, float, float], ...] = (
    (repeating, 20, 12, 10, 20),
    (repeating_often, 16, 2, 1, 0.5),
    (repeating_follow_up, 6, 6, 6, 8),
    (told_name, 6, 5, 4, 5),
    (untold_name, 1, 1, 1.5, 3),
    (told_thing, 6, 4, 6, 8),
    (name_after_tasks, 1, 3, 2, 3),
    (series, 2, 8, 6, 8),
    (counting, 8, 16, 34, 60),
    (counting_then_backwards, 2, 5, 9, 14),
    (greeting, 4, 6, 5, 6),
    (sums, 8, 24, 60, 130),
    (sum_follow_up, 3, 8, 18, 40),
    (thinking, 3, 6, 16, 40),
    (thinking_shortly, 1, 2.5, 3, 6),
    (calendar, 4, 6, 8, 12),
    (list_then_backwards, 1, 2, 2, 3),
    (facts, 3, 4, 3, 3),
    (tool_call, 6, 12, 14, 25),
    (tool_result, 4, 6, 8, 14),
    (no_tool_needed, 2, 4, 5, 8),
    (unknown, 6, 12, 7, 8),
    (repeating_numbers, 1, 3, 8, 20),
)
HEADING = 40_000  # dialogues in which the first weights would become the second
LATER, LAST = 40_000, 85_000  # dialogues after which the third and the fourth are used

SKILLS: dict[str, tuple[Writer, ...]] = {
    "counting": (counting,),
    "repeating": (repeating,),
    "greeting": (greeting,),
    "sums": (sums,),
    "calendar": (calendar,),
    "memory": (told_name, told_thing, untold_name, name_after_tasks),
    "series": (series,),
    "follow-up": (counting_then_backwards, list_then_backwards, sum_follow_up, repeating_follow_up),
    "facts": (facts,),
    "tools": (tool_call,),
    "tool results": (tool_result,),
    "tools unused": (no_tool_needed,),
    "thinking": (thinking, thinking_shortly),
    "unknown": (unknown,),
}

_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a friendly chatbot.",
    "You are Millstream, a helpful assistant.",
    "Answer briefly.",
    "Be concise.",
    "You are an AI assistant.",
    "You are a chatbot.",
    "Be polite and helpful.",
    "You are a helpful, honest assistant.",
    "Answer the user's questions.",
    "You help users with their questions.",
    "Keep your answers short.",
)


def _with_system(src: Source, dialogue: Dialogue) -> Dialogue:
    if dialogue.messages[0]["role"] == "system" or src.chance(0.5):
        return dialogue
    prompt = _SYSTEM_PROMPTS[0] if src.chance(0.5) else src.pick(_SYSTEM_PROMPTS)
    dialogue.messages.insert(0, {"role": "system", "content": prompt})
    return dialogue


def _thinking_off(src: Source, dialogue: Dialogue) -> Dialogue:
    """Now and then thinking is switched off explicitly, which must change nothing."""
    if dialogue.thinking == "unset" and dialogue.skill != "thinking" and src.chance(0.06):
        dialogue.thinking = "off"
    return dialogue


def _write(rng: random.Random, writer: Writer, *, held_out: bool) -> Dialogue:
    while True:
        src = Source(rng, held_out=held_out)
        dialogue = writer(src)
        if is_held_out(dialogue.prompt_key()) == held_out:
            return _thinking_off(src, _with_system(src, dialogue))


def held_out_dialogue(rng: random.Random, skill: str) -> Dialogue:
    """A dialogue of a skill whose prompt, and what it is about, training never shows."""
    return _write(rng, rng.choice(SKILLS[skill]), held_out=True)


def _weights(number: int) -> list[float]:
    """The mix that the dialogue of this number is drawn from."""
    if number >= LATER:
        return [last if number >= LAST else later for *_, later, last in MIX]
    done = number / HEADING
    return [first + (then - first) * done for _, first, then, _, _ in MIX]


def training_dialogues(seed: int) -> Iterator[Dialogue]:
    """Dialogues without end, the mix changing as training goes on."""
    rng = random.Random(seed)
    writers = [writer for writer, *_ in MIX]
    for number in count():
        yield _write(rng, rng.choices(writers, _weights(number))[0], held_out=False)
