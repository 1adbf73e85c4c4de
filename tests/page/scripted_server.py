"""`millstream serve` with a model that says what a test wants, as fast as it wants, and waits.

Rules:
1. Only the engine's place and its choice of words are not the server's own, as in
   `tests.e2e.kept_server`, whose way of starting servers this is.
2. The script is a file of JSON that may change while the server runs: for each question, the
   last thing that was said to the model, an answer. A question without one gets `UNSCRIPTED`.
3. At each `HOLD` in an answer the model says nothing more until the script's `releases` of that
   question are as many as the holds before, or the script has forgotten it. It draws tokens without
   a text meanwhile, so that everything else goes on: an answer that waits can be stopped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from millstream.core.plan import Chunk, Plan, StepOutput
from tests.e2e import kept_server
from tests.fakes import WholeSteps, fake_info

HOLD = "\N{DOUBLE VERTICAL BAR}"
"""Where an answer waits."""
UNSCRIPTED = "I have no line for that."
SCRIPT = "PAGE_SCRIPT"
"""The variable with the path of the script."""
_ROOT = Path(__file__).parents[2]
_END, _SILENT = "<end>", "<silent>"
_NUM_WORDS = 2048


@cache
def make_tokenizer() -> Tokenizer:
    """Byte-level BPE with words of English and of Markdown, four letters a token or so."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=_NUM_WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[_END, _SILENT],
        show_progress=False,
    )
    pages = sorted((_ROOT / "docs").glob("*.md"))
    tokenizer.train_from_iterator([page.read_text(encoding="utf-8") for page in pages], trainer)
    return tokenizer


@dataclass(frozen=True, slots=True)
class Story:
    """An answer. parts: its tokens between the holds. seconds: how long each token takes."""

    question: str
    parts: tuple[tuple[int, ...], ...]
    seconds: float


class ScriptedRunner(WholeSteps):
    """The engine loop's runner, which reads its answers from the script."""

    def __init__(self) -> None:
        self._tokenizer = make_tokenizer()
        self._end: int = self._tokenizer.token_to_id(_END)
        self._silent: int = self._tokenizer.token_to_id(_SILENT)
        self._path = Path(os.environ[SCRIPT])
        self._read = b""
        self._script: dict[str, Any] = {}
        self._stories: dict[int, Story] = {}
        self._places: dict[int, tuple[int, int]] = {}
        info = fake_info(num_blocks=8192, block_size=16, max_step_tokens=8192)
        self.info = replace(info, vocab_size=self._tokenizer.get_vocab_size())

    def scrub(self, blocks: Sequence[int]) -> None:
        pass

    def step(self, plan: Plan) -> StepOutput:
        drawing = [chunk for chunk in plan.chunks if chunk.sampling is not None]
        tokens = [self._next(chunk) for chunk in drawing]
        time.sleep(max((self._stories[each.request_id].seconds for each in drawing), default=0.0))
        return StepOutput(tokens)

    def _now(self) -> dict[str, Any]:
        """The script as it is now. Times of files are too coarse to tell whether it has changed."""
        read = self._path.read_bytes()
        if read != self._read:
            self._read, self._script = read, json.loads(read)
        return self._script

    def _next(self, chunk: Chunk) -> int:
        key = chunk.request_id
        if chunk.num_generated == 0:
            self._stories[key] = self._story(chunk)
            self._places[key] = (0, 0)
        story, (part, place) = self._stories[key], self._places[key]
        if place == len(story.parts[part]):
            if part + 1 == len(story.parts):
                return self._end
            if self._now()["releases"].get(story.question, math.inf) <= part:
                return self._silent
            part, place = part + 1, 0
            if not story.parts[part]:
                self._places[key] = (part, place)
                return self._silent
        self._places[key] = (part, place + 1)
        return story.parts[part][place]

    def _story(self, chunk: Chunk) -> Story:
        prompt = self._tokenizer.decode(list(chunk.request.prompt), skip_special_tokens=False)
        *_, asked, begun = ["", *prompt.rsplit("\n", 1)]
        question = text_of(json.loads(asked.rpartition("\n")[2].partition(":")[2]))
        line = self._now()["answers"].get(question, {"text": UNSCRIPTED})
        text = line["text"].removeprefix(begun.partition(":")[2])
        parts = tuple(self._tokens(each, line.get("by_letter", False)) for each in text.split(HOLD))
        return Story(question, parts, line.get("seconds", 0.002))

    def _tokens(self, text: str, is_by_letter: bool) -> tuple[int, ...]:
        pieces = text if is_by_letter else [text]
        return tuple(token for each in pieces for token in self._tokenizer.encode(each).ids)


def text_of(message: dict[str, Any]) -> str:
    """What a message says; its content may be parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


class LineTemplate:
    """Writes every message as a line of JSON, and then what the answer begins with."""

    chat_template = "{{ messages }} {{ tools }} reasoning_content tool_calls enable_thinking"

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        messages, begun = list(conversation), ""
        if options.get("continue_final_message"):
            begun = text_of(messages.pop())
        lines = [f"{each['role']}:{json.dumps(each)}\n" for each in messages]
        return "".join(lines) + f"assistant:{begun}"


def main() -> None:
    """Starts servers until there are no more lines."""
    kept_server.Storyteller = ScriptedRunner  # type: ignore[assignment,misc]
    kept_server.LineTemplate = LineTemplate  # type: ignore[assignment,misc]
    kept_server.make_byte_tokenizer = make_tokenizer
    kept_server.main()


if __name__ == "__main__":
    main()
