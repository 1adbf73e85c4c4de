"""The events of a streamed text completion, as bytes ready for the socket. Pure.

Beside what OpenAI defines, each event with text has TGI's `token` object: it is what programs read
that stream text with huggingface.js, which sends them here. `logprob` in it is null unless
log probabilities were asked for. Framing as in events.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from millstream.api.openai.completions.whole import (
    AnsweredPrompt,
    CompletionReport,
    answer_entries,
    prompt_entries,
    text_logprobs,
)
from millstream.api.openai.generate.answer import Identity
from millstream.api.openai.generate.events import EventBuilder
from millstream.api.openai.generate.logprob_shapes import finite
from millstream.text.assembler import TextDelta
from millstream.text.vocabulary import Vocabulary

_escape = json.encoder.encode_basestring_ascii
_PLAIN = ',"logprobs":null,"finish_reason":null}],"token":{"id":'


class CompletionStream(EventBuilder):
    """Makes the events of one request. prompts: each has `per_prompt` choices, in their order."""

    def __init__(
        self,
        identity: Identity,
        *,
        report: CompletionReport,
        vocabulary: Vocabulary,
        prompts: Sequence[AnsweredPrompt],
        per_prompt: int,
    ) -> None:
        super().__init__(identity, "text_completion", report=report, vocabulary=vocabulary)
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
        if text or delta.finish_reason or delta.logprobs or self._report.token_ids:
            details = self._details(index, delta, usage, text=text, is_first=is_first)
            return (before + details).encode()
        return b""

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
        report, escaped, ends = self._report, _escape(text), delta.finish_reason is not None
        logprobs, logprob = "null", "null"
        if report.logprobs:
            logprobs = self._logprobs(index, delta, is_first=is_first)
            if delta.logprobs:
                logprob = json.dumps(finite(delta.logprobs[-1].score.logprob))
        reason = json.dumps(delta.finish_reason)
        event = f'{escaped},"logprobs":{logprobs},"finish_reason":{reason}'
        if ends:
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
