"""Fields that say how tokens are drawn, when the answer ends and what is reported of it.

None means: not given, take the model's or the server's default. Ranges are those of the API a
field comes from; where that has none, one that keeps the work of a request bounded.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator

from millstream.errors import InvalidRequest
from millstream.intake.first_error import at_most
from millstream.intake.strict_body import Body, tag, whole_number

MAX_STOPS = 16
MAX_STOP_LENGTH = 1000
MAX_STOP_TOKENS = 128
MAX_BIASES = 1024
MAX_BAD_WORDS = 128
MAX_ALLOWED_TOKENS = 50_000
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 128

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stop = Annotated[
    Annotated[StopString, Tag("string")]
    | Annotated[list[StopString], Field(max_length=MAX_STOPS), Tag("list")],
    Discriminator(tag(of_list="list", otherwise="string")),
]
TokenId = Annotated[int, Field(ge=0)]
TokenIdText = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Biases = Annotated[dict[TokenIdText, Bias], Field(max_length=MAX_BIASES), at_most(MAX_BIASES)]
Word = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class DrawingFields(Body):
    """What every API that answers takes; all fields take 40.0 for 40."""

    _whole = field_validator("*", mode="before")(whole_number)

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Biases | None = None
    bad_words: list[Word] | None = Field(None, max_length=MAX_BAD_WORDS)
    allowed_token_ids: list[TokenId] | None = Field(
        None, min_length=1, max_length=MAX_ALLOWED_TOKENS
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)

    stop: Stop | None = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=MAX_STOP_TOKENS)
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(None, ge=0)
    skip_special_tokens: bool | None = None

    priority: int | None = Field(None, ge=-(2**31), lt=2**31)
    cache_salt: str | None = Field(None, min_length=1, max_length=256)


class SamplingFields(DrawingFields):
    """One part of every request of the older APIs, which have several answers."""

    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    return_token_ids: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def num_choices(self) -> int:
        return self.n or 1

    def check_min_tokens(self, wanted: int | None) -> None:
        """wanted: tokens the answer may have. Raises InvalidRequest if min_tokens are more."""
        if wanted is not None and (self.min_tokens or 0) > wanted:
            raise InvalidRequest(
                f"min_tokens is {self.min_tokens}, more than max_tokens, {wanted}",
                param="min_tokens",
            )
