"""A text completion, as events ready for the socket or as one body. Pure.

Beside what OpenAI defines, each event with text has TGI's `token` object: it is what programs read
that stream text with huggingface.js, which sends them here. `logprob` in it is null unless
log probabilities were asked for. Framing as in
generate/builder.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millstream.api.openai.completions.text_logprobs import (
    AnsweredPrompt,
    answer_entries,
    prompt_entries,
    text_logprobs,
)
from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.answer_builder import AnswerBuilder
from millstream.api.openai.generate.logprob_shapes import finite, prompt_logprobs
from millstream.text.assembler import TextDelta
from millstream.text.vocabulary import Vocabulary

_escape = json.encoder.encode_basestring_ascii
_PLAIN = ',"logprobs":null,"finish_reason":null}],"token":{"id":'


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionReport(Report):
    """num_top, num_prompt_top: alternatives in `logprobs` and in `prompt_logprobs`."""

    echo: bool = False
    num_top: int = 0
    num_prompt_top: int = 0


class CompletionBuilder(AnswerBuilder):
    """Makes the events or the body of one completion request.

    prompts: each has `per_prompt` choices, in their order.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        report: CompletionReport,
        vocabulary: Vocabulary,
        prompts: Sequence[AnsweredPrompt],
        per_prompt: int,
    ) -> None:
        super().__init__(
            identity, chunk_kind="text_completion", report=report, vocabulary=vocabulary
        )
        self._report = report
        self._prompts = prompts
        self._per_prompt = per_prompt
        self._offsets: dict[int, int] = {}

    def chunk(self, index: int, delta: TextDelta, usage: dict[str, Any] | None = None) -> bytes:
        """The event of a choice's delta."""
        if not delta.token_ids and delta.finish_reason is None:
            return b""  # scores of the prompt, which are sent with its echo
        text = delta.text
        is_first = index not in self._before
        if is_first:
            text = self._start(index) + text
        before = self._before[index]
        if self._is_plain and delta.finish_reason is None:
            if not text:
                return b""
            escaped = _escape(text)
            token = self._token(delta, escaped)
            return f"{before}{escaped}{_PLAIN}{token}{self._tail}".encode()
        if text or delta.finish_reason or self._report.is_told_of(delta):
            details = self._details(index, delta, usage, text=text, is_first=is_first)
            return (before + details).encode()
        return b""

    def whole(self, choices: Sequence[WholeChoice], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        answer = self._identity.head("text_completion")
        answer["choices"] = [
            {"index": index} | self._whole(index, choice) for index, choice in enumerate(choices)
        ]
        answer["usage"] = usage
        return answer

    def _whole(self, index: int, choice: WholeChoice) -> dict[str, Any]:
        report, asked = self._report, self._asked(index)
        assert choice.finish_reason is not None, "told before it ended"
        self.finish_reasons[index] = choice.finish_reason
        echo = asked.prompt.text if report.echo else ""
        content: dict[str, Any] = {
            "text": echo + choice.said.content,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": choice.token_ids if report.token_ids else None,
            "prompt_token_ids": list(asked.prompt.token_ids) if report.token_ids else None,
            "prompt_logprobs": None,
        }
        if report.logprobs:
            entries = list(prompt_entries(asked)) if report.echo else []
            entries += answer_entries(choice.logprobs, offset=len(echo))
            content["logprobs"] = text_logprobs(entries, self._vocabulary, num_top=report.num_top)
        if report.prompt_logprobs:
            count = report.num_prompt_top
            scores = [score._replace(top=score.top[:count]) for score in asked.scores]
            content["prompt_logprobs"] = prompt_logprobs(scores, self._vocabulary)
        return content

    def _asked(self, index: int) -> AnsweredPrompt:
        return self._prompts[index // self._per_prompt]

    def _start(self, index: int) -> str:
        """The text before the answer's own."""
        self._before[index] = f'data: {self._head},"choices":[{{"index":{index},"text":'
        echo = self._asked(index).prompt.text if self._report.echo else ""
        self._offsets[index] = len(echo)
        return echo

    def _token(self, delta: TextDelta, escaped: str, logprob: str = "null") -> str:
        """The rest of the `token` object, from its id on: of the last token of several."""
        if not delta.token_ids:
            return f'null,"text":{escaped},"logprob":null,"special":false}}'
        token = delta.token_ids[-1]
        special = "true" if self._vocabulary.is_special(token) else "false"
        return f'{token},"text":{escaped},"logprob":{logprob},"special":{special}}}'

    def _details(
        self,
        index: int,
        delta: TextDelta,
        usage: dict[str, Any] | None,
        *,
        text: str,
        is_first: bool,
    ) -> str:
        """An event from its text on, with all that was asked for."""
        report, escaped = self._report, _escape(text)
        logprobs, logprob = "null", "null"
        if report.logprobs:
            logprobs = self._logprobs(index, delta, is_first=is_first)
            if delta.logprobs:
                logprob = json.dumps(finite(delta.logprobs[-1].score.logprob))
        reason = json.dumps(delta.finish_reason)
        event = f'{escaped},"logprobs":{logprobs},"finish_reason":{reason}'
        if delta.finish_reason is not None:
            self.finish_reasons[index] = delta.finish_reason
            event += f',"stop_reason":{json.dumps(delta.stop_reason)}'
        if report.token_ids:
            event += f',"token_ids":{json.dumps(delta.token_ids)}'
            if is_first:
                event += f',"prompt_token_ids":{json.dumps(self._asked(index).prompt.token_ids)}'
        token = self._token(delta, escaped, logprob)
        tail = f',"usage":{json.dumps(usage)}}}\n\n' if report.running_usage else self._tail
        return f'{event}}}],"token":{{"id":{token}{tail}'

    def _logprobs(self, index: int, delta: TextDelta, *, is_first: bool) -> str:
        """Those of this event, null if there are none."""
        entries = list(prompt_entries(self._asked(index))) if is_first and self._report.echo else []
        entries += answer_entries(delta.logprobs, offset=self._offsets[index])
        self._offsets[index] += sum(len(token.text) for token in delta.logprobs)
        if not entries:
            return "null"
        return json.dumps(text_logprobs(entries, self._vocabulary, num_top=self._report.num_top))
