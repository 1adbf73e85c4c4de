"""A chat completion that is not streamed, and how either kind ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.logprob_shapes import content_logprobs, prompt_logprobs
from millstream.core.request import FinishReason, TokenLogprob
from millstream.text.parsing.output import ParsedAnswer
from millstream.text.vocabulary import Vocabulary


def finish_reason(reason: FinishReason | None, *, has_calls: bool) -> str | None:
    """As clients know it: an answer that calls tools and ends by itself waits for results."""
    return "tool_calls" if has_calls and reason == "stop" else reason


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
