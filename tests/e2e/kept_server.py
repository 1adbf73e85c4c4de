"""`millstream serve` with a storyteller for a model: for tests that kill servers by the dozen.

Rules:
1. Only the engine's place and its choice of words are not the server's own: it runs in a thread,
   and tells the same story to the same prompt. HTTP, runs, store, recovery and shutdown are real;
   the store waits a second, not five, for a file that another program holds.
2. Starting takes a fraction of a second, since this program loads everything once and forks for
   each server it is told to start, by a line of flags. It says the server's process id, what the
   server says, and when it is over.

    echo '["--port", "8080", "--store", "/tmp/store.db"]' | python -m tests.e2e.kept_server
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from millstream import cli, engine_command, server_process, server_store
from millstream.api.context import ServerContext
from millstream.core.plan import Plan, StepOutput
from millstream.runtime.thread_host import ThreadHost
from millstream.server_context import ServerParts
from millstream.settings import Settings
from millstream.store.address import StoreAddress
from millstream.store.store import Store
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.vocabulary import Vocabulary
from tests.e2e.kept import CALLED
from tests.fakes import WholeSteps, fake_info
from tests.text.conftest import make_byte_tokenizer
from tests.text.parsing.samples import choose

_MAX_RUNNING = 64
_STEP_SECONDS = 0.006
_BUSY_SECONDS = 1.0
_HOLD = Path(os.environ.get("MILLSTREAM_HOLD", "/dev/null"))
_HELD_AFTER = 20
_TEXT = 'hello world the quick brown fox 你好 🦊 data: id: \\ <b> "quoted"'
_WORDS = [*_TEXT.split(), "\n\n"]


class Storyteller(WholeSteps):
    """A runner whose answer to a prompt is always the same, and takes a while.

    While the file `MILLSTREAM_HOLD` is there, no answer ends: each says spaces where it would go
    on after its first words.
    """

    def __init__(self) -> None:
        self._tokenizer = make_byte_tokenizer()
        self._end: int = self._tokenizer.token_to_id("<end>")
        (self._space,) = self._tokenizer.encode(" ").ids
        self._stories: dict[int, list[int]] = {}
        self._num_held: Counter[int] = Counter()
        info = fake_info(num_blocks=8192, block_size=16, max_step_tokens=8192)
        self.info = replace(info, vocab_size=self._tokenizer.get_vocab_size())

    def scrub(self, blocks: Sequence[int]) -> None:
        pass

    def step(self, plan: Plan) -> StepOutput:
        time.sleep(_STEP_SECONDS)
        is_held = _HOLD.is_file()
        running = {chunk.request_id for chunk in plan.chunks}
        if len(self._stories) > 2 * _MAX_RUNNING:
            self._stories = {each: self._stories[each] for each in running & set(self._stories)}
            self._num_held = Counter({each: self._num_held[each] for each in running})
        tokens = []
        for chunk in plan.chunks:
            if chunk.sampling is None:
                continue
            if chunk.request_id not in self._stories:
                self._stories[chunk.request_id] = self._story(chunk.request.prompt)
            story = self._stories[chunk.request_id]
            place = chunk.num_generated - self._num_held[chunk.request_id]
            if is_held and place == self._pause(story):
                self._num_held[chunk.request_id] += 1
                tokens.append(self._space)
            else:
                tokens.append(story[place] if place < len(story) else self._end)
        return StepOutput(tokens)

    def _pause(self, story: Sequence[int]) -> int:
        """The place in a story where it is held: behind a space, or at the end."""
        places = range(_HELD_AFTER, len(story))
        return next((place for place in places if story[place - 1] == self._space), len(story))

    def _story(self, prompt: Sequence[int]) -> list[int]:
        chance = random.Random(repr(tuple(prompt)))
        thought = " ".join(chance.choices(_WORDS, k=chance.randrange(1, 8)))
        text = " ".join(chance.choices(_WORDS, k=chance.randrange(1, 40)))
        call = f'<tool_call>\n{{"name": "{CALLED}", "arguments": {{}}}}\n</tool_call>'
        parts = [f"<think>\n{thought}\n</think>\n", text, call]
        return self._tokenizer.encode("".join(parts[: chance.choice([2, 2, 3])])).ids


class LineTemplate:
    """Writes every message as a line."""

    chat_template = "{{ messages }} {{ tools }} reasoning_content tool_calls enable_thinking"

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        return "".join(f"{each['role']}:{json.dumps(each)}\n" for each in conversation)


class ImpatientStore(Store):
    """A store that soon fails while another program holds its file."""

    @classmethod
    async def open(cls, address: StoreAddress, **limits: Any) -> Self:
        return await super().open(address, busy_seconds=_BUSY_SECONDS, **limits)


class StorytellerHost(ThreadHost):
    """The engine's thread, where the server starts a process, whose command has the settings."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        settings = json.loads(command[command.index("--settings") + 1])
        num_running = min(settings["max_concurrent_requests"], _MAX_RUNNING)
        super().__init__(build_runner=Storyteller, max_running=num_running)


async def make_context(settings: Settings, folder: Path, parts: ServerParts) -> ServerContext:
    """What the server makes of a model's folder."""
    tokenizer = make_byte_tokenizer()
    secret = b"" if parts.store is None else await parts.store.secret("sessions")
    return ServerContext(
        settings=settings,
        session_secret=secret,
        engine=parts.engine,
        chat=ChatFormatter(LineTemplate(), tokenizer),
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer),
        parsers=choose("think", "hermes"),
        workers=parts.workers,
        store=parts.store,
        runs=parts.runs,
        stop_token_ids=(tokenizer.token_to_id("<end>"),),
        fingerprint="storyteller",
    )


def main() -> None:
    """Starts servers until there are no more lines."""
    engine_command.ProcessHost = StorytellerHost  # type: ignore[assignment,misc]
    server_process.make_context = make_context
    server_process.resolve = lambda settings: Path()
    server_store.Store = ImpatientStore  # type: ignore[misc]
    for line in sys.stdin:
        child = os.fork()
        if not child:
            print(os.getpid(), flush=True)
            sys.exit(cli.main(["serve", *json.loads(line)]))
        os.waitpid(child, 0)
        print("over", flush=True)


if __name__ == "__main__":
    main()
