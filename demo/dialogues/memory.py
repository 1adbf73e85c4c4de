"""Names, favourites and codes that the user tells, and asks for later in the conversation."""

from __future__ import annotations

from .base import Dialogue, Source, chat, listed
from .smalltalk import greeting
from .words import COMMON, invented_word, person

_TELL_NAME = (
    "My name is {n}",
    "I am {n}",
    "I'm {n}",
    "Hi, I am {n}",
    "Hello, my name is {n}",
    "Hello, I'm {n}",
    "Call me {n}",
    "You can call me {n}",
    "Hi, my name is {n}",
    "Hi! My name is {n}",
    "They call me {n}",
    "Hey, I'm {n}",
    "{n} is my name",
    "My name is {n}, nice to meet you",
    "Remember that my name is {n}",
    "This is {n}",
)
_ASK_NAME = (
    "What is my name?",
    "What's my name?",
    "What was my name?",
    "Do you remember my name?",
    "Do you know my name?",
    "Who am I?",
    "Can you tell me my name?",
    "Say my name",
    "Tell me my name",
    "What did I say my name was?",
    "And what is my name?",
    "What is my name again?",
    "Which name did I tell you?",
    "Remind me what my name is",
)
_TELL_THING = (
    "My favorite {k} is {v}",
    "My {k} is {v}",
    "Remember that my {k} is {v}",
    "Please remember: my {k} is {v}",
    "The {k} is {v}",
    "Remember the {k} is {v}",
    "Note that my {k} is {v}",
)
_ASK_THING = (
    "What is {p} {k}?",
    "What was {p} {k}?",
    "Do you remember {p} {k}?",
    "Can you tell me {p} {k}?",
    "Tell me {p} {k}",
    "Which {k} did I tell you?",
)
_THINGS = listed(
    "color number animal food city drink fruit password code word book song movie game team "
    "sport flower tree season car dog cat street hobby country key pin letter shoe"
)


def aside(src: Source) -> tuple[str, str]:
    """Something short to put between a question and its follow-up."""
    dialogue = greeting(src)
    return str(dialogue.messages[0]["content"]), str(dialogue.messages[1]["content"])


def name_turns(src: Source) -> tuple[tuple[str, str], tuple[str, str]]:
    """Telling a name, and asking for it, each with its answer."""
    name = person(src)
    told = src.ask(_TELL_NAME, polite=False, n=name), f"Nice to meet you, {name}!"
    return told, (src.ask(_ASK_NAME, polite=False), f"Your name is {name}.")


def told_name(src: Source) -> Dialogue:
    """A name is told, and asked for later, with or without something in between."""
    told, asked = name_turns(src)
    turns = [*told, *aside(src)] if src.chance(0.4) else [*told]
    if src.chance(0.85):
        turns += asked
    return chat("memory", *turns)


def untold_name(src: Source) -> Dialogue:
    """Asked for a name nobody told."""
    turns = list(aside(src)) if src.chance(0.5) else []
    turns += [src.ask(_ASK_NAME, polite=False), "You have not told me your name."]
    return chat("memory", *turns)


def told_thing(src: Source) -> Dialogue:
    """A favourite or a code is told, and asked for later."""
    kind = src.pick(_THINGS)

    def make() -> str:
        roll = src.rng.random()
        if roll < 0.3:
            return str(src.rng.randint(0, 9999))
        return src.pick(COMMON) if roll < 0.6 else invented_word(src)

    value = src.fresh(make, lambda v: f"thing {v}")
    told = src.ask(_TELL_THING, polite=False, k=kind, v=value)
    mine = " my " in f" {told.lower()} "
    owner = "your" if mine else "the"
    turns = [told, f"I will remember that {owner} {kind} is {value}."]
    if src.chance(0.3):
        turns += aside(src)
    asked = src.ask(_ASK_THING, polite=False, k=kind, p="my" if mine else "the")
    return chat("memory", *turns, asked, f"{owner.capitalize()} {kind} is {value}.")
