"""The body of POST /v1/completions.

Sources: the OpenAI API reference, "Create completion"; vLLM's extensions of it.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import Discriminator, Field, Tag, ValidationError

from millstream.errors import InvalidRequest
from millstream.intake.fields.delivery import DeliveryFields
from millstream.intake.fields.formats import FormatFields
from millstream.intake.fields.refused import without_unsupported
from millstream.intake.sampling_fields import MAX_TOP_LOGPROBS, SamplingFields, TokenId
from millstream.intake.strict_body import invalid

MAX_PROMPTS = 1024
DEFAULT_MAX_TOKENS = 16

TokenIds = list[TokenId]
TextOrIds = str | TokenIds


def _form(value: Any) -> str:
    """Which of the four forms of `prompt` is meant, so that errors speak of that one."""
    if not isinstance(value, list):
        return "string"
    first = value[0] if value else None
    if isinstance(first, list):
        return "id_lists"
    return "strings" if isinstance(first, str) else "ids"


PromptField = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[list[str], Field(max_length=MAX_PROMPTS), Tag("strings")]
    | Annotated[TokenIds, Field(min_length=1), Tag("ids")]
    | Annotated[list[TokenIds], Field(max_length=MAX_PROMPTS), Tag("id_lists")],
    Discriminator(_form),
]


class CompletionRequest(SamplingFields, FormatFields, DeliveryFields):
    """Every accepted field of a completion request."""

    prompt: PromptField
    max_tokens: int | None = Field(None, ge=0)
    best_of: int | None = Field(None, ge=1)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    add_special_tokens: bool | None = None

    @property
    def prompts(self) -> list[TextOrIds]:
        """The prompts, each as it was sent."""
        is_one = _form(self.prompt) in ("string", "ids")
        return cast(list[TextOrIds], [self.prompt] if is_one else self.prompt)

    @property
    def wanted_tokens(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def kept_tokens(self) -> int | None:
        """How many tokens at the end of a prompt are computed, if not all."""
        return None

    @property
    def scores_stop(self) -> bool:
        """Whether the tokens of a stop string are reported with log probabilities."""
        return False

    def check_fit(self, *, num_prompt: int, max_context: int) -> None:
        """Raises InvalidRequest if the answer must have all the tokens that are asked for, and has
        no room for them. Here it may be shorter."""

    @property
    def num_prompt_logprobs(self) -> int | None:
        """How many alternatives the engine is to report with the prompt's tokens."""
        echoed = self.logprobs if self.echo else None
        wanted = [count for count in (echoed, self.prompt_logprobs) if count is not None]
        return max(wanted, default=None)


_FIELDS = frozenset(CompletionRequest.model_fields)


def parse_completion_request(body: dict[str, Any]) -> CompletionRequest:
    """Checks the body. Raises InvalidRequest whose `param` is the path of the first wrong field."""
    fields = without_unsupported(body, _FIELDS)
    try:
        request = CompletionRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
    if request.wanted_tokens == 0 and not request.echo:
        raise InvalidRequest(
            "max_tokens: 0 leaves nothing to answer without echo", param="max_tokens"
        )
    request.check_min_tokens(request.wanted_tokens)
    if request.best_of not in (None, request.num_choices):
        raise InvalidRequest(
            f"best_of: only as many answers are made as are shown, {request.num_choices}",
            param="best_of",
        )
    request.check_delivery(prompt_logprobs=request.prompt_logprobs)
    request.check_format()
    return request
