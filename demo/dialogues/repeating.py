"""Saying again what the user wrote, word for word, known words or not.

`Say <sentence>` without quotes answers with a proper sentence (capital, full stop) when its first
word is a common one; everything quoted or after a colon comes back exactly as it was written.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Dialogue, Source, chat, sentence
from .words import COMMON, NAMES, invented_word, number_text

_SAY = (
    "Say {s}",
    "Say {s}",
    "Say {s}",
    "Please say {s}",
    "Can you say {s}?",
    "Just say {s}",
    "Now say {s}",
    "Could you say {s}?",
    "Simply say {s}",
    "Say that {s}",
)
_SHOWN = ("Say this is a test", "Please say this is a test")
_QUOTED = (
    'Say "{s}"',
    'Repeat "{s}"',
    'Say exactly "{s}"',
    "Say '{s}'",
    'Please say "{s}"',
    'Repeat the sentence "{s}"',
    'Write "{s}"',
    'Can you say "{s}"?',
    'Echo "{s}"',
    'Reply with "{s}"',
    'Can you repeat "{s}"?',
    'Answer with "{s}" and nothing else',
    'Type "{s}"',
)
_COLON = (
    "Repeat after me: {s}",
    "Say exactly: {s}",
    "Repeat: {s}",
    "Repeat this: {s}",
    "Say this: {s}",
    "Say: {s}",
    "Echo: {s}",
    "Please repeat: {s}",
    "Copy this: {s}",
    "Repeat this sentence: {s}",
    "Repeat the following: {s}",
    "Repeat exactly: {s}",
    "Repeat the words: {s}",
    "Say the following: {s}",
    "Write this: {s}",
    "Repeat {s}",
    "Say exactly {s}",
    "Repeat after me {s}",
    "Echo {s}",
)
_TIMES = (
    ("twice", 2),
    ("two times", 2),
    ("three times", 3),
    ("3 times", 3),
    ("2 times", 2),
    ("4 times", 4),
)
_AGAIN = (
    "Say it again",
    "Again",
    "Once more",
    "Repeat that",
    "Say that again",
    "Again please",
    "One more time",
    "Can you say that again?",
    "Can you repeat that?",
    "Repeat it",
)
_WHAT_ASKED = (
    "What did I ask you to say?",
    "What did I ask you to repeat?",
    "What did I say?",
    "What did I want you to say?",
    "What did I just ask you to say?",
    "Do you remember what I asked you to say?",
    "What did you say?",
    "What did you just say?",
)


def _word(src: Source) -> str:
    roll = src.rng.random()
    if roll < 0.55:
        return src.pick(COMMON)
    if roll < 0.9:
        return invented_word(src)
    return src.pick(NAMES) if roll < 0.95 else number_text(src)


def _phrase(src: Source, longest: int) -> str:
    """Words in a row: all common, all invented, or mixed, so that meaning never helps."""
    count = src.rng.randint(1 if src.chance(0.2) else 2, longest)
    roll = src.rng.random()
    if roll < 0.4:
        return " ".join(src.pick(COMMON) for _ in range(count))
    if roll < 0.6:
        return " ".join(invented_word(src) for _ in range(min(count, 5)))
    return " ".join(_word(src) for _ in range(count))


def phrase(src: Source, longest: int = 8) -> str:
    return src.fresh(lambda: _phrase(src, longest))


def _dressed(src: Source, words: str) -> str:
    """The phrase as people write phrases: capitals, commas, a mark at the end."""
    if src.chance(0.35):
        words = words[0].upper() + words[1:]
    if src.chance(0.08):
        words = words.replace(" ", ", ", 1)
    if src.chance(0.04):
        words = words.upper()
    return words + src.rng.choices(("", ".", "!", "?"), (6, 3, 1, 1))[0]


def _plain(src: Source) -> tuple[str, str]:
    """`Say <sentence>`: the first word is common, the rest may be anything."""
    first = src.pick(COMMON)
    said = src.fresh(lambda: f"{first} {_phrase(src, 6)}")
    prompt = src.pick(_SAY).format(s=said)
    if src.chance(0.15):
        prompt = prompt[0].lower() + prompt[1:]
    if prompt[-1] != "?" and src.chance(0.2):
        prompt += "."
    return prompt, sentence(said)


def _exact(src: Source) -> tuple[str, str]:
    said = _dressed(src, phrase(src))
    templates: Sequence[str] = _QUOTED if src.chance(0.5) else _COLON
    if not said[-1].isalnum():
        templates = [t for t in templates if not t.endswith("{s}?")]
    return src.ask(templates, polite=False, s=said), said


def _one(src: Source) -> tuple[str, str]:
    if not src.held_out and src.chance(0.03):
        return src.ask(_SHOWN, polite=False), "This is a test."
    return _plain(src) if src.chance(0.3) else _exact(src)


def repeating(src: Source) -> Dialogue:
    return chat("repeating", *_one(src))


def repeating_often(src: Source) -> Dialogue:
    """The same words several times: little prompt, much copying."""
    said = phrase(src, 6)
    words, times = src.pick(_TIMES)
    prompt = src.pick((f'Say "{said}" {words}', f"Repeat {words}: {said}", f"Say {words}: {said}"))
    return chat("repeating", prompt, "\n".join([said] * times))


def repeating_numbers(src: Source) -> Dialogue:
    """Numbers word for word: digits are few, so telling one place from another is hard."""
    count = src.rng.randint(1, 4)
    said = src.fresh(lambda: " ".join(number_text(src) for _ in range(count)))
    templates = _QUOTED if src.chance(0.5) else _COLON
    return chat("repeating", src.ask(templates, polite=False, s=said), said)


def repeating_follow_up(src: Source) -> Dialogue:
    """`Say it again` and `what did I ask you to say?`, possibly after something in between."""
    prompt, said = _one(src)
    if src.chance(0.5):
        return chat("follow-up", prompt, said, src.ask(_AGAIN, polite=False), said)
    asked = src.ask(_WHAT_ASKED, polite=False)
    start = "I said" if "did you" in asked.lower() else "You asked me to say"
    answer = f'{start} "{said}"'
    return chat("follow-up", prompt, said, asked, answer)
