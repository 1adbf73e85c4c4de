"""A server whose engine says what it is told to say, and clients that put its answers together."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millstream.api.context import ServerContext
from millstream.core.plan import Plan, StepOutput
from millstream.core.request import TokenLogprob
from millstream.core.status import EngineInfo
from millstream.runtime.supervised import supervised_client
from millstream.runtime.thread_host import ThreadHost
from millstream.settings import Settings
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.vocabulary import Vocabulary
from millstream.workers.workers import Workers
from tests.api.described_transport import CheckedTransport
from tests.fakes import WholeSteps, fake_info
from tests.runtime.conftest import until
from tests.text.conftest import byte_tokenizer
from tests.text.parsing.samples import TOOLS, choose

__all__ = ["byte_tokenizer"]

HERMES = choose("think", "hermes")


class Speaker(WholeSteps):
    """A runner whose answers are `texts`, in order of the requests' ids, each ended by the stop
    token. Which of several requests is computed first is a matter of timing; their ids are not."""

    def __init__(self, tokenizer: Tokenizer, info: EngineInfo) -> None:
        self.info = info
        self.texts: list[str] = []
        self._tokenizer = tokenizer
        self._end = tokenizer.token_to_id("<end>")
        self._ids: dict[int, list[int]] = {}
        self._limit: int | None = None
        self._limit_changed = threading.Condition()

    @contextlib.contextmanager
    def silent(self, *, after: int = 0) -> Iterator[None]:
        """Nothing is said for as long as this lasts, but the first `after` tokens of an answer."""
        self.allow(after)
        try:
            yield
        finally:
            self.allow(None)

    def allow(self, num_tokens: int | None) -> None:
        """From now on answers wait when they have so many tokens; None: they do not wait."""
        with self._limit_changed:
            self._limit = num_tokens
            self._limit_changed.notify()

    def scrub(self, blocks: Any) -> None:
        pass

    def step(self, plan: Plan) -> StepOutput:
        longest = max(chunk.num_generated for chunk in plan.chunks)
        with self._limit_changed:
            self._limit_changed.wait_for(lambda: self._limit is None or longest < self._limit)
        tokens: list[int] = []
        logprobs: dict[int, TokenLogprob] = {}
        for chunk in plan.chunks:
            if chunk.request_id not in self._ids:
                first = min(self._ids, default=chunk.request_id)
                text = self.texts[(chunk.request_id - first) % len(self.texts)]
                self._ids[chunk.request_id] = self._tokenizer.encode(text).ids
            if chunk.sampling is None:
                continue
            ids = self._ids[chunk.request_id]
            at = chunk.num_generated
            tokens.append(ids[at] if at < len(ids) else self._end)
            if chunk.sampling.logprobs is not None:
                logprobs[len(tokens) - 1] = TokenLogprob(tokens[-1], -float(at), 1, ())
        return StepOutput(tokens, logprobs, {})

    def say(self, *texts: str) -> None:
        self.texts = list(texts)
        self._ids = {}


class Template:
    """Renders the last message, and remembers which messages and tools it was given."""

    chat_template = "{{ messages }} {{ tools }}"
    tools: Any = None
    conversation: Any = None

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        self.tools, self.conversation = options.get("tools"), conversation
        return str(conversation[-1]["content"])


@dataclass
class Joined:
    """What a client puts together of one choice's events, or reads of its whole message."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish_reason: str | None = None
    logprobs: list[Any] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


def whole(choice: dict[str, Any]) -> Joined:
    message = choice["message"]
    assert message.get("reasoning_content") == message.get("reasoning")
    assert (message["content"] is None) == (not message["content"] and "tool_calls" in message)
    calls = message.get("tool_calls", [])
    assert all(call["type"] == "function" for call in calls)
    assert len({call["id"] for call in calls}) == len(calls)
    return Joined(
        message["content"] or "",
        message.get("reasoning", ""),
        [(call["function"]["name"], call["function"]["arguments"]) for call in calls],
        choice["finish_reason"],
        (choice["logprobs"] or {}).get("content", []),
        choice.get("token_ids") or [],
    )


def joined(events: list[Any], index: int = 0) -> Joined:
    answer = Joined()
    choices = [c for event in events for c in event["choices"] if c["index"] == index]
    assert [choice["delta"].get("role") for choice in choices] == ["assistant"] + [None] * (
        len(choices) - 1
    )
    ids = []
    for choice in choices:
        delta = choice["delta"]
        assert answer.finish_reason is None, "the finishing event is the last"
        assert delta.get("reasoning_content") == delta.get("reasoning")
        answer.content += delta["content"]
        answer.reasoning += delta.get("reasoning", "")
        for call in delta.get("tool_calls", []):
            if call["index"] == len(answer.calls):
                assert call["type"] == "function"
                assert call["function"]["arguments"] == ""
                ids.append(call["id"])
                answer.calls.append((call["function"]["name"], ""))
            else:
                assert set(call) == {"index", "function"}
                assert set(call["function"]) == {"arguments"}
                name, arguments = answer.calls[call["index"]]
                answer.calls[call["index"]] = (name, arguments + call["function"]["arguments"])
        answer.finish_reason = choice["finish_reason"]
        answer.logprobs += (choice["logprobs"] or {}).get("content", [])
        answer.token_ids += choice.get("token_ids") or []
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    return answer


class Talk:
    """A server of `parsers`. Others can be put in their place."""

    def __init__(self, context: ServerContext, speaker: Speaker, template: Template) -> None:
        self.context = context
        self.tokenizer = context.tokenizer
        self.chat = context.chat
        self.speaker = speaker
        self.template = template
        self.parsers = HERMES

    async def in_engine(self, count: int) -> None:
        """Waits until so many requests are in the engine and have not ended."""
        streams = self.context.engine.streams
        await until(lambda: sum(s.is_started and not s.is_ended for s in streams) == count)

    async def post(self, **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "x"}], "tools": TOOLS} | fields
        context = replace(self.context, parsers=self.parsers)
        transport = CheckedTransport(context)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/chat/completions", json=body)

    async def refused(self, **fields: Any) -> Any:
        response = await self.post(**fields)
        assert response.status_code == 400, response.text
        return response.json()["error"]["param"]

    async def body(self, **fields: Any) -> Any:
        response = await self.post(**fields)
        assert response.status_code == 200, response.text
        return response.json()

    async def events(self, **fields: Any) -> list[Any]:
        response = await self.post(stream=True, **fields)
        assert response.status_code == 200, response.text
        *events, done = [part.removeprefix("data: ") for part in response.text.split("\n\n")[:-1]]
        assert done == "[DONE]"
        return [json.loads(event) for event in events]

    async def both(self, text: str, **fields: Any) -> Joined:
        """The answer, which is the same streamed and whole."""
        self.speaker.say(text)
        answer = whole((await self.body(**fields))["choices"][0])
        assert joined(await self.events(**fields)) == answer
        return answer


@pytest.fixture(scope="module")
def marked_tokenizer(byte_tokenizer: Tokenizer) -> Tokenizer:
    """With special tokens, of which one is a marker of the Mistral format."""
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.add_special_tokens(["[TOOL_CALLS]", "<junk>"])
    return tokenizer


@pytest.fixture
async def talk(marked_tokenizer: Tokenizer) -> AsyncIterator[Talk]:
    vocab_size = marked_tokenizer.get_vocab_size()
    info = replace(fake_info(num_blocks=1024), vocab_size=vocab_size)
    speaker, template = Speaker(marked_tokenizer, info), Template()
    engine = supervised_client(
        ThreadHost(build_runner=lambda: speaker, max_running=4),
        max_running=4,
        max_waiting=2,
        engine_timeout=60,
    )
    workers = Workers()
    context = ServerContext(
        settings=Settings(served_model_name="fake"),
        engine=engine,
        chat=ChatFormatter(template, marked_tokenizer),
        tokenizer=marked_tokenizer,
        vocabulary=Vocabulary(marked_tokenizer),
        parsers=HERMES,
        workers=workers,
        stop_token_ids=(marked_tokenizer.token_to_id("<end>"),),
        fingerprint="f",
    )
    engine.start()
    try:
        await engine.wait_ready()
        yield Talk(context, speaker, template)
        assert engine.num_open == 0, "a request kept its place"
    finally:
        await engine.stop()
        await workers.stop()
