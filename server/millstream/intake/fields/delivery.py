"""Fields that say how an answer is delivered: in pieces or whole, by when, and with what counts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body

MAX_SECONDS = 86_400.0


class StreamOptions(Body):
    """include_obfuscation: OpenAI's padding against traffic analysis, which is never added."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] = False


class UsageWish(Body):
    include: bool


class DeliveryFields(Body):
    """One part of every generation request. model: any name, one model is served.

    user: a word for the log. usage: OpenRouter's way to ask for include_usage.
    """

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    usage: UsageWish | None = None
    timeout: float | None = Field(None, gt=0, le=MAX_SECONDS)
    user: str | None = None

    @property
    def include_usage(self) -> bool:
        asked = self.stream_options is not None and self.stream_options.include_usage
        return asked or (self.usage is not None and self.usage.include)

    @property
    def include_running_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    def check_delivery(self, *, prompt_logprobs: int | None) -> None:
        """Raises InvalidRequest for fields that do not go together."""
        if prompt_logprobs is not None and self.stream:
            raise InvalidRequest(
                "prompt_logprobs is not available in a stream", param="prompt_logprobs"
            )
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "stream_options is only allowed with stream", param="stream_options"
            )
        if self.include_running_usage and not self.include_usage:
            raise InvalidRequest(
                "continuous_usage_stats needs include_usage",
                param="stream_options.continuous_usage_stats",
            )
