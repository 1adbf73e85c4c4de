"""Fields that say how much a model is to think, and whether it is shown.

Sources: OpenAI; the Responses API and OpenRouter, where the effort is in `reasoning`; vLLM.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from millstream.errors import InvalidRequest
from millstream.intake.strict_body import Body

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ReasoningOptions(Body):
    """exclude, summary: values that ask for what happens anyway."""

    effort: ReasoningEffort | None = None
    exclude: Literal[False] | None = None
    summary: None = None


class ReasoningFields(Body):
    """One part of a chat request.

    effort_is_wish: whether a model whose template has no word for an effort answers all the same.
    """

    effort_is_wish: ClassVar[bool] = False

    reasoning_effort: ReasoningEffort | None = None
    reasoning: ReasoningOptions | None = None
    include_reasoning: bool | None = None

    @property
    def wanted_effort(self) -> ReasoningEffort | None:
        """The effort, wherever it was written."""
        if self.reasoning is not None and self.reasoning_effort is None:
            return self.reasoning.effort
        return self.reasoning_effort

    def check_effort(self) -> None:
        """Raises InvalidRequest for two efforts."""
        inner = None if self.reasoning is None else self.reasoning.effort
        if None not in (inner, self.reasoning_effort) and inner != self.reasoning_effort:
            raise InvalidRequest(
                "reasoning_effort and reasoning.effort mean the same and differ; send one of them",
                param="reasoning.effort",
            )
