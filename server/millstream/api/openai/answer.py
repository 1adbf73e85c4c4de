"""What every answer has, and the answer that is not streamed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from millstream.api.openai.logprobs import content_logprobs, prompt_logprobs
from millstream.core.request import FinishReason, TokenLogprob
from millstream.text.assembler import TextDelta
from millstream.text.logprobs import TextLogprob
from millstream.text.parsing.deltas import ParsedAnswer, join
from millstream.text.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What every chunk of one answer repeats. created: seconds since the epoch."""

    completion_id: str
    model: str
    created: int
    fingerprint: str

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def call(self, choice: int, index: int, name: str, arguments: str = "") -> dict[str, Any]:
        """A tool call. Its id has 9 letters and digits: the only form that all templates take."""
        seed = f"{self.completion_id} {choice} {index}".encode()
        return {
            "id": blake2b(seed, digest_size=8).hexdigest()[:9],
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a client wants to read beside the text.

    logprobs, prompt_logprobs, token_ids: whether to report them. usage: the last event of a
    stream has it. running_usage: every event does. is_tool_named: the one call was asked for by
    name, and the finish reason does not speak of it (OpenAI's contract).
    """

    logprobs: bool = False
    prompt_logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    running_usage: bool = False
    is_tool_named: bool = False


def finish_reason(reason: FinishReason | None, *, has_calls: bool) -> str | None:
    """As clients know it: an answer that calls tools and ends by itself waits for results."""
    return "tool_calls" if has_calls and reason == "stop" else reason


def usage(*, num_prompt: int, num_generated: int, num_cached: int) -> dict[str, Any]:
    """OpenAI's usage object; cached tokens are those of the prompt found in the prefix cache."""
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
        "prompt_tokens_details": {"cached_tokens": num_cached},
    }


@dataclass(slots=True)
class WholeChoice:
    """One answer, collected from its deltas."""

    said: ParsedAnswer
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TextLogprob] = field(default_factory=list)

    @classmethod
    def of(cls, deltas: Sequence[TextDelta]) -> WholeChoice:
        return cls(
            said=_said(deltas),
            finish_reason=deltas[-1].finish_reason,
            stop_reason=deltas[-1].stop_reason,
            token_ids=[token for delta in deltas for token in delta.token_ids],
            logprobs=[entry for delta in deltas for entry in delta.logprobs],
        )


def _said(deltas: Sequence[TextDelta]) -> ParsedAnswer:
    if deltas[0].parts is None:
        return ParsedAnswer("".join(delta.text for delta in deltas))
    return join(part for delta in deltas for part in delta.parts or ())


def whole_answer(
    identity: Identity,
    choices: Sequence[WholeChoice],
    usage: dict[str, Any],
    *,
    report: Report,
    vocabulary: Vocabulary,
    prompt: Sequence[int] = (),
    prompt_scores: Sequence[TokenLogprob] = (),
) -> dict[str, Any]:
    """The body of an answer that is not streamed. prompt and its scores: if they are reported."""
    answer = identity.head("chat.completion")
    answer["choices"] = [
        _whole_choice(identity, index, choice, report, vocabulary)
        for index, choice in enumerate(choices)
    ]
    answer["usage"] = usage
    if report.token_ids:
        answer["prompt_token_ids"] = list(prompt)
    if report.prompt_logprobs:
        answer["prompt_logprobs"] = prompt_logprobs(prompt_scores, vocabulary)
    return answer


def _whole_choice(
    identity: Identity, index: int, choice: WholeChoice, report: Report, vocabulary: Vocabulary
) -> dict[str, Any]:
    content = {
        "index": index,
        "message": _message(identity, index, choice.said),
        "logprobs": content_logprobs(choice.logprobs, vocabulary) if report.logprobs else None,
        "finish_reason": finish_reason(
            choice.finish_reason,
            has_calls=bool(choice.said.calls) and not report.is_tool_named,
        ),
        "stop_reason": choice.stop_reason,
    }
    return content | {"token_ids": choice.token_ids} if report.token_ids else content


def _message(identity: Identity, choice: int, said: ParsedAnswer) -> dict[str, Any]:
    content = said.content if said.content or not said.calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if said.reasoning:
        # Two names of one thing; each is the only one that some clients know.
        message |= {"reasoning_content": said.reasoning, "reasoning": said.reasoning}
    if said.calls:
        message["tool_calls"] = [
            identity.call(choice, index, call.name, call.arguments)
            for index, call in enumerate(said.calls)
        ]
    return message
