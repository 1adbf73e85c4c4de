"""From a history to what the engine is asked: by the model's chat template, or by a prompt class.

Rule: a history that is too long loses its oldest turns, each whole, never the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.chatstream.histories import Said
from millstream.chatstream.prompts import stop_strings
from millstream.chatstream.replies import Replacements


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """prompt: messages for the chat template, or a text. num_dropped: messages that do not fit."""

    prompt: str | list[dict[str, str]]
    num_tokens: int
    stops: list[str]
    replacements: Replacements
    num_dropped: int


class Prompter:
    """Makes prompts for one tokenizer. prompt_class: None for the chat template.

    max_tokens: what a prompt may have. add_special_tokens: the tokenizer's option, for texts.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt_class: Callable[[], Any] | None,
        *,
        max_tokens: int,
        add_special_tokens: bool | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt_class = prompt_class
        self._max_tokens = max_tokens
        self._specials: dict[str, bool] = {}
        if add_special_tokens is not None:
            self._specials = {"add_special_tokens": add_special_tokens}

    def ask(self, history: Sequence[Said]) -> Asked:
        """What the engine is asked after this history, whose last message is the user's."""
        for start in self._starts(history):
            asked = self._make(history, start)
            if asked.num_tokens <= self._max_tokens:
                break
        return asked

    def text(self, history: Sequence[Said]) -> str:
        """The prompt as the model reads it."""
        prompt = self._make(history, 0).prompt
        if isinstance(prompt, str):
            return prompt
        shown: str = self._tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=history[-1].role == "user"
        )
        return shown

    def ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        ids: list[int] = self._tokenizer(text, **self._specials)["input_ids"]
        return ids

    @staticmethod
    def _starts(history: Sequence[Said]) -> list[int]:
        """The places at which a prompt may begin: messages of the user."""
        return [at for at, said in enumerate(history) if said.role == "user"]

    def _make(self, history: Sequence[Said], start: int) -> Asked:
        said = history[start:]
        if self._prompt_class is None:
            messages = [{"role": each.role, "content": each.text} for each in said]
            ids = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            return Asked(
                prompt=messages,
                num_tokens=len(ids),
                stops=[],
                replacements=(),
                num_dropped=start,
            )
        prompt = self._prompt_class()
        prompt.set_tokenizer(self._tokenizer)
        prompt.build_initial_prompt(prompt)
        for each in said:
            add = prompt.add_requester_msg if each.role == "user" else prompt.add_responder_msg
            add(each.text)
        if not said or said[-1].role == "user":
            prompt.add_responder_msg(None)
        text = prompt.create_prompt({})
        return Asked(
            prompt=text,
            num_tokens=len(self.ids(text)),
            stops=stop_strings(prompt),
            replacements=prompt.get_replacement_when_output() or (),
            num_dropped=start,
        )
