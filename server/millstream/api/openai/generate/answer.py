"""What the answers of every endpoint that generates have, streamed or whole. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from millstream.core.request import FinishReason
from millstream.generation.contract import call_id
from millstream.text.assembler import TextDelta
from millstream.text.parsing.output import ParsedAnswer, join
from millstream.text.shown_logprobs import TextLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What every chunk of one answer repeats. created: seconds since the epoch.

    tenant: whose it is; not for the answer. Prompts of others are not shared with it. request_id:
    what the client finds it by in our log.
    """

    completion_id: str
    model: str
    created: int
    fingerprint: str
    tenant: str = ""
    request_id: str = ""

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def call(self, choice: int, index: int, name: str, arguments: str = "") -> dict[str, Any]:
        """A tool call."""
        return {
            "id": call_id(self.completion_id, choice=choice, index=index),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a client wants to read beside the text.

    logprobs, prompt_logprobs, token_ids: whether to report them. usage: the last event of a
    stream has it. running_usage: every event does. hides_reasoning: it is made, counted and not
    shown. is_tool_named: the one call was asked for by
    name, and the finish reason does not speak of it (OpenAI's contract).
    """

    logprobs: bool = False
    prompt_logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    running_usage: bool = False
    hides_reasoning: bool = False
    is_tool_named: bool = False

    def is_told_of(self, delta: TextDelta) -> bool:
        """Whether the delta has an event even if it has no text: what is reported beside the text
        would be lost without one, if the client leaves or the answer fails before there is more.

        The tokens of the last delta are counted by the finishing event.
        """
        is_counted = self.running_usage and delta.finish_reason is None
        return bool(delta.logprobs) or (bool(delta.token_ids) and (self.token_ids or is_counted))


@dataclass(slots=True)
class WholeChoice:
    """One answer, collected from its deltas. said: what they add up to."""

    said: ParsedAnswer
    deltas: Sequence[TextDelta] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TextLogprob] = field(default_factory=list)

    @classmethod
    def of(cls, deltas: Sequence[TextDelta]) -> WholeChoice:
        return cls(
            said=_said(deltas),
            deltas=deltas,
            finish_reason=deltas[-1].finish_reason,
            stop_reason=deltas[-1].stop_reason,
            token_ids=[token for delta in deltas for token in delta.token_ids],
            logprobs=[entry for delta in deltas for entry in delta.logprobs],
        )


def _said(deltas: Sequence[TextDelta]) -> ParsedAnswer:
    if deltas[0].parts is None:
        return ParsedAnswer("".join(delta.text for delta in deltas))
    return join(part for delta in deltas for part in delta.parts or ())
