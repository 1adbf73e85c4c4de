"""Log probabilities in OpenAI's older shape: four lists, with one entry for each token. Pure.

The tokens are those of prompt and answer, those included that make no text. Only tokens of a stop
string have no entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from millstream.api.openai.generate.logprob_shapes import finite
from millstream.core.request import TokenLogprob
from millstream.text.assembler import TextAssembler
from millstream.text.raw_prompt import EncodedPrompt
from millstream.text.shown_logprobs import TextLogprob
from millstream.text.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt, and the assembler of its first answer: the one that has the prompt's scores."""

    prompt: EncodedPrompt
    assembler: TextAssembler

    @property
    def scores(self) -> Sequence[TokenLogprob]:
        """Log probabilities of the prompt's tokens from the second one on; all are there once the
        answer's first token is."""
        return self.assembler.prompt_logprobs


class Entry(NamedTuple):
    """A token in `logprobs`. text: what it adds; offset: where that begins in the choice's text.

    score: None for the first token of a prompt, which nothing predicts.
    """

    token_id: int
    text: str
    offset: int
    score: TokenLogprob | None


def prompt_entries(asked: AnsweredPrompt) -> Iterator[Entry]:
    """An entry for each token of the prompt."""
    token_ids, text, starts = asked.prompt
    ends = (*starts[1:], len(text))
    scores = (None, *asked.scores)
    for token, start, end, score in zip(token_ids, starts, ends, scores, strict=True):
        yield Entry(token, text[start:end], start, score)


def answer_entries(tokens: Iterable[TextLogprob], *, offset: int) -> Iterator[Entry]:
    """An entry for each of these tokens. offset: characters of the choice's text before them."""
    for token in tokens:
        yield Entry(token.score.token_id, token.text, offset, token.score)
        offset += len(token.text)


def text_logprobs(
    entries: Iterable[Entry], vocabulary: Vocabulary, *, num_top: int
) -> dict[str, list[Any]]:
    """The value of a choice's `logprobs`. A token without a text is written as what it is."""
    tokens: list[str] = []
    logprobs: list[float | None] = []
    top: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for entry in entries:
        text = entry.text or vocabulary[entry.token_id].text
        tokens.append(text)
        offsets.append(entry.offset)
        score = entry.score
        logprobs.append(None if score is None else finite(score.logprob))
        top.append(None if score is None else _alternatives(text, score, vocabulary, num_top))
    return {
        "text_offset": offsets,
        "token_logprobs": logprobs,
        "tokens": tokens,
        "top_logprobs": top,
    }


def _alternatives(
    text: str, score: TokenLogprob, vocabulary: Vocabulary, num_top: int
) -> dict[str, float]:
    """The most probable tokens, and the token itself whether it is one of them or not."""
    found: dict[str, float] = {}
    for token_id, number in score.top[:num_top]:
        # Tokens may have the same text: the most probable one is meant.
        name = text if token_id == score.token_id else vocabulary[token_id].text
        found.setdefault(name, finite(number))
    return found | {text: finite(score.logprob)}
