"""`millstream serve` with a demo model that knows its lines: for clients that need a clever model.

Rules:
1. Only the model's choice of words is scripted. HTTP, chat template, engine process, scheduler,
   KV cache, forward pass, grammars, sampler, detokenizer and parsers are the server's own.
2. A line is pushed into the logits, token by token, before the sampler sees them: a grammar that
   forbids a token of it has the last word. An answer that left its line is the model's own.
3. A prompt without a line in `script.py` is answered by the demo model as always.

    python tests/compat/scripted_server.py serve --port 8080
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from script import answer_to
from tokenizers import Tokenizer

from millstream import cli, engine_command, engine_process
from millstream.core.plan import Chunk, Plan
from millstream.core.status import Report
from millstream.model.build import runner_factory
from millstream.model.loading.tokenizer import read_tokenizer
from millstream.model.runner import DrawnStep, LaunchedStep, ModelRunner
from millstream.runtime.host import ProcessHost
from millstream.settings import Settings

_CERTAIN = 1e4
"""A logit beside which no other token is ever drawn, at any sensible temperature."""


class Prompter:
    """Stands between a runner's forward pass and its sampler."""

    def __init__(
        self, launch: Callable[..., LaunchedStep], *, tokenizer: Tokenizer, end: int
    ) -> None:
        """launch: the runner's own. end: the token that ends an answer."""
        self._launch = launch
        self._tokenizer = tokenizer
        self._end = end
        self._line = lru_cache(maxsize=256)(self._find_line)

    @torch.inference_mode()
    def launch(self, plan: Plan, after: DrawnStep | None = None) -> LaunchedStep:
        """The runner's step, in whose logits the next token of a line is certain."""
        launched = self._launch(plan, after)
        for row, chunk in enumerate(chunk for chunk in plan.chunks if chunk.is_last):
            token = self._next(chunk)
            if token is not None:
                launched.logits[row, token] = _CERTAIN
        return launched

    def _next(self, chunk: Chunk) -> int | None:
        """The next token of the line, if the answer so far is its beginning."""
        line = self._line(chunk.request.prompt)
        answer = (*chunk.history[len(chunk.request.prompt) :], *chunk.assumed)
        if len(answer) >= len(line) or answer != line[: len(answer)]:
            return None
        return line[len(answer)]

    def _find_line(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens of the scripted answer, or none."""
        answer = answer_to(self._tokenizer.decode(prompt, skip_special_tokens=False))
        if answer is None:
            return ()
        return (*self._tokenizer.encode(answer, add_special_tokens=False).ids, self._end)


class ScriptedHost(ProcessHost):
    """Starts this program as the engine, where the server starts itself."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        python, *_ = command
        arguments = command[command.index("engine") :]
        super().__init__([python, __file__, *arguments], environment=environment)


def build_scripted_runner(
    folder: Path, settings: Settings, *, report: Report
) -> Callable[[], ModelRunner]:
    """The server's own factory of runners, and a prompter for what it makes."""
    build_own = runner_factory(folder, settings, report=report)

    def build() -> ModelRunner:
        runner = build_own()
        tokenizer = Tokenizer.from_str(read_tokenizer(folder, trust_remote_code=False))
        prompter = Prompter(runner.launch, tokenizer=tokenizer, end=runner.info.stop_token_ids[0])
        runner.launch = prompter.launch  # type: ignore[method-assign]
        return runner

    return build


if __name__ == "__main__":
    engine_command.ProcessHost = ScriptedHost
    engine_process.runner_factory = build_scripted_runner
    sys.exit(cli.main())
