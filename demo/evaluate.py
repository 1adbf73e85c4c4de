"""Scores a demo model on held-out prompts, skill by skill.

Every prompt is one the training stream can not contain, the answer is greedy, and only the expected
text, to the letter, counts as right (tool calls are compared as parsed calls).

    python -m demo.evaluate [FOLDER]
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .dialogues import SKILLS, Dialogue, held_out_dialogue
from .render import render

MODEL = Path(__file__).parents[1] / "server" / "millstream" / "demo" / "model"
BATCH = 25


@dataclass(frozen=True)
class Answer:
    """One held-out prompt, what the model should have said, and what it said."""

    prompt: str
    expected: str
    said: str

    @property
    def right(self) -> bool:
        return _meaning(self.said) == _meaning(self.expected)


def _meaning(text: str) -> object:
    """Text as it is; a tool call as the call it stands for."""
    if "<tool_call>" not in text:
        return text
    try:
        return json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0])
    except (json.JSONDecodeError, IndexError):
        return text


class Demo:
    """The model and its tokenizer, ready to answer batches of prompts greedily."""

    def __init__(self, folder: Path = MODEL) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder)
        self.model.train(mode=False)

    def complete(self, prompts: list[str], longest: int = 320) -> list[str]:
        """What the model writes after each prompt, without its end mark."""
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        said = [""] * len(prompts)
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            inputs = self.tokenizer(
                [prompts[i] for i in chosen],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
            )
            with torch.inference_mode():
                output = self.model.generate(**inputs, max_new_tokens=longest)
            written = output[:, inputs["input_ids"].shape[1] :]
            texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
            for index, text in zip(chosen, texts, strict=True):
                said[index] = text
        return said

    def chat(self, *turns: str, system: str | None = None, **template: Any) -> str:
        """The answer to a conversation that starts with the user and ends with the user."""
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        prompt = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **template
        )
        return self.complete([prompt])[0]


def split_last_answer(dialogue: Dialogue) -> tuple[str, str]:
    """The text up to the last thing the model should write, and that thing without its end mark."""
    pieces = render(dialogue)
    last = max(index for index, (_, written) in enumerate(pieces) if written)
    return "".join(text for text, _ in pieces[:last]), pieces[last][0].removesuffix("<|im_end|>")


def held_out_set(skill: str, size: int, seed: int = 1) -> list[tuple[str, str]]:
    """Different held-out prompts of a skill with their answers, the same for the same seed."""
    rng = random.Random(f"{seed} {skill}")
    found: dict[str, str] = {}
    for _ in range(size * 50):
        prompt, answer = split_last_answer(held_out_dialogue(rng, skill))
        found.setdefault(prompt, answer)
        if len(found) == size:
            break
    return list(found.items())


def evaluate(folder: Path = MODEL, size: int = 50) -> dict[str, list[Answer]]:
    demo = Demo(folder)
    answers: dict[str, list[Answer]] = {}
    for skill in SKILLS:
        prompts = held_out_set(skill, size)
        said = demo.complete([prompt for prompt, _ in prompts])
        answers[skill] = [Answer(p, e, s) for (p, e), s in zip(prompts, said, strict=True)]
    return answers


def table(answers: dict[str, list[Answer]]) -> str:
    lines = [f"{'skill':<14} right  of"]
    for skill, given in answers.items():
        lines.append(f"{skill:<14} {sum(a.right for a in given):>5} {len(given):>3}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(evaluate(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL)))
