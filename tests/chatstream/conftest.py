"""The demo model, and a ChatStream around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millstream.chatstream import AbstractChatPrompt, ChatStream
from tests.embedded.conftest import model, one_thread, tokenizer

__all__ = ["model", "one_thread", "tokenizer"]

END = "<::EOS::>"
Make = Callable[..., ChatStream]


class DemoPrompt(AbstractChatPrompt):
    """A prompt class as ChatStream's programs have them, for the demo model."""

    def __init__(self) -> None:
        super().__init__()
        self.set_requester("<|im_start|>user")
        self.set_responder("<|im_start|>assistant")

    def get_stop_strs(self) -> list[str]:
        return ["<|im_end|>"]

    def create_prompt(self, opts: Any = None) -> str:
        text = self.system
        for content in self.get_contents(opts):
            text += f"{content.get_role()}\n"
            if content.get_message():
                text += f"{content.get_message()}<|im_end|>\n"
        return text


@pytest.fixture
def make(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[Make]:
    """Makes some that draw the most probable tokens; they are closed afterwards."""
    made = []

    def make(**arguments: Any) -> ChatStream:
        given = {"model": model, "tokenizer": tokenizer, "temperature": 0, **arguments}
        made.append(ChatStream(**given))
        return made[-1]

    yield make
    for each in made:
        each.close()
