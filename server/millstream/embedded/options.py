"""The keywords of `chat()`, `complete()` and `generate()`, checked before anything is computed.

Rule: a keyword is honoured or refused by name. Names, ranges and meaning are those of the HTTP
API's fields, whose schema checks them. None means: not given, take what the model's generation
config recommends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import Field, ValidationError
from typing_extensions import TypedDict

from millstream.core.request import Request
from millstream.core.status import EngineInfo
from millstream.intake.engine_request import check_token_ids, engine_request
from millstream.intake.sampling_fields import MAX_TOP_LOGPROBS, SamplingFields
from millstream.intake.strict_body import invalid
from millstream.text.vocabulary import Vocabulary

# What others call them, where that is spelled too differently to be found.
_ELSEWHERE = {
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "min_new_tokens": "min_tokens",
    "stop_strings": "stop",
    "eos_token_id": "stop_token_ids",
    "bad_words_ids": "bad_words",
}


class SamplingOptions(TypedDict, total=False):
    """How an answer is generated. What each one does to the logits: see core's SamplingParams.

    max_tokens: at most so many are generated (default: what the context has left).
    stop: strings that end the answer and are no part of it.
    stop_token_ids: these end the answer, besides the model's own end of turn.
    ignore_eos: the model's own end of turn does not end the answer.
    bad_words: texts that are not generated.
    logprobs: how many alternatives to report with each token; prompt_logprobs: the same for the
        prompt's tokens from the second one on.
    seed: fixes what is drawn, whatever else is running (default: another one each time).
    priority: smaller runs first. cache_salt: prefixes are shared only within the same salt.
    chat_template_kwargs: variables that the model's chat template reads (enable_thinking).
    """

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[int, float] | None
    bad_words: Sequence[str] | None
    allowed_token_ids: Sequence[int] | None
    min_tokens: int | None
    seed: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool | None
    skip_special_tokens: bool | None
    ignore_eos: bool | None
    priority: int | None
    cache_salt: str | None
    chat_template_kwargs: Mapping[str, Any] | None


class Options(SamplingFields):
    """SamplingOptions, checked."""

    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    chat_template_kwargs: dict[str, Any] | None = None


def check_options(given: Mapping[str, Any], *, vocab_size: int) -> Options:
    """Raises TypeError for unknown names, InvalidRequest for values, which name the option."""
    for name in given:
        if name not in SamplingOptions.__annotations__:
            known = ", ".join(SamplingOptions.__annotations__)
            raise TypeError(f"there is no option {name!r};{_hint(name)} there are: {known}")
    try:
        options = Options(**{name: _as_in_json(value) for name, value in given.items()})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)[0]) from error
    check_token_ids(options, vocab_size=vocab_size)
    return options


def _hint(name: str) -> str:
    """The known name that is near to an unknown one, as a question."""
    known = SamplingOptions.__annotations__
    near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, known, n=1)
    return f" did you mean {near[0]}?" if near else ""


def _as_in_json(value: Any) -> Any:
    """Lists for tuples, text for the token ids that are keys."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return {str(key) if type(key) is int else key: item for key, item in value.items()}
    return value


def build_request(
    options: Options,
    *,
    request_id: int,
    prompt: tuple[int, ...],
    room: int,
    info: EngineInfo,
    vocabulary: Vocabulary,
    end_of_turn: Iterable[int],
) -> Request:
    """What the engine is asked. room: tokens that the context has left after the prompt.

    Raises InvalidRequest for options that this prompt or this model leave no room for.
    """
    return engine_request(
        options,
        info,
        request_id=request_id,
        prompt=prompt,
        wanted=options.max_tokens,
        room=room,
        logprobs=options.logprobs,
        bad_words=[way for word in options.bad_words or () for way in vocabulary.sequences(word)],
        end_of_turn=end_of_turn,
    )
