"""A turn of a conversation computes its new tokens only, whichever way the conversation is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from openai import OpenAI

from .harness import RunningServer
from .sdk import openai_client
from .test_messages import BLOCK, CITIES
from .test_tools_and_reasoning import RESULT, WEATHER

TOOLS: list[Any] = [{"type": "function", **WEATHER["function"]}]

BEGUN = 3
"""At most so many tokens with which the template begins thoughts, or says that there are none."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Tokens of one answer. call: the id of the call it made."""

    prompt: int
    cached: int
    answer: int
    call: str | None

    @property
    def end(self) -> int:
        """Tokens of the conversation after this turn."""
        return self.prompt + self.answer


class Chat:
    """Chat completions: the client sends the whole conversation in every turn."""

    def __init__(self, client: OpenAI, effort: str | None) -> None:
        self._client = client
        self._fields: dict[str, Any] = {"temperature": 0}
        if effort:
            self._fields["reasoning_effort"] = effort
        self._said: list[Any] = []

    def ask(self, text: str, *, tool_choice: str) -> Turn:
        return self._turn({"role": "user", "content": text}, tool_choice)

    def tell(self, call: str, output: str) -> Turn:
        return self._turn({"role": "tool", "tool_call_id": call, "content": output}, "auto")

    def _turn(self, message: Any, tool_choice: str) -> Turn:
        self._said.append(message)
        fields: Any = {**self._fields, "messages": self._said, "tools": [WEATHER]}
        answer = self._client.chat.completions.create(
            model="any", tool_choice=tool_choice, max_tokens=300, **fields
        )
        self._said.append(answer.choices[0].message.model_dump(exclude_none=True))
        usage = answer.usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        calls = answer.choices[0].message.tool_calls
        return Turn(
            prompt=usage.prompt_tokens,
            cached=usage.prompt_tokens_details.cached_tokens or 0,
            answer=usage.completion_tokens,
            call=calls[0].id if calls else None,
        )


class Responses:
    """The Responses API; subclasses say how one response builds on another."""

    def __init__(self, client: OpenAI, effort: str | None) -> None:
        self._client = client
        self._fields: dict[str, Any] = {"temperature": 0}
        if effort:
            self._fields["reasoning"] = {"effort": effort}

    def ask(self, text: str, *, tool_choice: str) -> Turn:
        return self._turn({"role": "user", "content": text}, tool_choice)

    def tell(self, call: str, output: str) -> Turn:
        item = {"type": "function_call_output", "call_id": call, "output": output}
        return self._turn(item, "auto")

    def link(self, item: Any) -> dict[str, Any]:
        """The fields of a request that adds this item."""
        raise NotImplementedError

    def take(self, response: Any) -> None:
        """Looks at what was answered."""

    def _turn(self, item: Any, tool_choice: str) -> Turn:
        fields: Any = {**self._fields, **self.link(item), "tools": TOOLS}
        response = self._client.responses.create(
            model="any", tool_choice=tool_choice, max_output_tokens=300, **fields
        )
        assert response.status == "completed"
        self.take(response)
        assert response.usage is not None
        calls = [one.call_id for one in response.output if one.type == "function_call"]
        return Turn(
            prompt=response.usage.input_tokens,
            cached=response.usage.input_tokens_details.cached_tokens,
            answer=response.usage.output_tokens,
            call=calls[0] if calls else None,
        )


class Chain(Responses):
    """Each response names the one before it."""

    _previous: str | None = None

    def link(self, item: Any) -> dict[str, Any]:
        return {"input": [item], "previous_response_id": self._previous}

    def take(self, response: Any) -> None:
        self._previous = response.id


class Conversation(Responses):
    """A conversation on the server collects what is said."""

    def __init__(self, client: OpenAI, effort: str | None) -> None:
        super().__init__(client, effort)
        self._conversation = client.conversations.create().id

    def link(self, item: Any) -> dict[str, Any]:
        return {"input": [item], "conversation": self._conversation}


class Stateless(Responses):
    """Nothing is stored; the client sends all items, those of the model as it got them."""

    def __init__(self, client: OpenAI, effort: str | None) -> None:
        super().__init__(client, effort)
        self._items: list[Any] = []

    def link(self, item: Any) -> dict[str, Any]:
        self._items.append(item)
        include = ["reasoning.encrypted_content"]
        return {"input": self._items, "store": False, "include": include}

    def take(self, response: Any) -> None:
        self._items += [one.model_dump(exclude_none=True) for one in response.output]


WAYS: list[Callable[[OpenAI, str | None], Chat | Responses]] = [
    Chat,
    Chain,
    Conversation,
    Stateless,
]
ways = pytest.mark.parametrize("way", range(len(WAYS)), ids=[way.__name__ for way in WAYS])


class Talks:
    """Eight turns each: of four questions, the call that each leads to and what is made of it."""

    def __init__(self, client: OpenAI) -> None:
        self._client = client
        self._held: dict[tuple[int, str | None], list[tuple[Turn, Turn]]] = {}

    def held(self, way: int, effort: str | None) -> list[tuple[Turn, Turn]]:
        """The talk of this way, a number in WAYS. Talks differ from the first question on, by a
        number, so that none finds another's tokens in the cache."""
        if (way, effort) not in self._held:
            number = len(self._held)
            assert number < 10, "the numbers are of one length"
            talk = WAYS[way](self._client, effort)
            tool_choice = "required" if effort is None else "auto"
            self._held[way, effort] = [
                self._question(talk, f"Talk {number}. What is the weather in {city}?", tool_choice)
                for city in CITIES[:4]
            ]
        return self._held[way, effort]

    @staticmethod
    def _question(talk: Chat | Responses, text: str, tool_choice: str) -> tuple[Turn, Turn]:
        asked = talk.ask(text, tool_choice=tool_choice)
        assert asked.call is not None
        told = talk.tell(asked.call, RESULT)
        assert told.call is None
        return asked, told


@pytest.fixture(scope="module")
def talks(demo_server: RunningServer) -> Iterator[Talks]:
    with openai_client(demo_server.url) as client:
        yield Talks(client)


@ways
def test_a_turn_computes_only_its_new_tokens(way: int, talks: Talks) -> None:
    """New tokens, and less than a block of those before.

    The cache holds whole blocks of what was computed, which the last token of an answer is not:
    it was drawn and never fed. So at most BLOCK tokens are computed that are not new.
    """
    turns = [turn for pair in talks.held(way, None) for turn in pair]
    assert len(turns) == 8
    for before, turn in pairwise(turns):
        assert turn.cached < turn.prompt
        new = turn.prompt - before.end
        assert turn.prompt - turn.cached <= new + BLOCK


@ways
def test_thoughts_are_kept_until_the_next_question(way: int, talks: Talks) -> None:
    """The output of a tool follows the thoughts that led to its call, so nothing is computed again.

    The demo model's template leaves out thoughts from before the last question. A new question
    thus follows another text from the first answer to the last question on, and computes that; the
    question itself and what came before it are cached.
    """
    pairs = talks.held(way, "high")
    for asked, told in pairs:
        new = told.prompt - asked.end
        assert told.prompt - told.cached <= new + BLOCK
    for (before, _), (asked, _) in pairwise(pairs):
        assert asked.cached >= before.prompt - BEGUN - BLOCK
