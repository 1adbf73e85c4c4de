"""What a text completion reports, and the answer that is not streamed. Pure.

Log probabilities have OpenAI's older shape: four lists with one entry for each token of prompt and
answer, those included that make no text. Only tokens of a stop string have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from millstream.api.openai.generate.answer import Identity, Report, WholeChoice
from millstream.api.openai.generate.logprob_shapes import finite, prompt_logprobs
from millstream.core.request import TokenLogprob
from millstream.text.assembler import TextAssembler
from millstream.text.logprobs import TextLogprob
from millstream.text.raw_prompt import EncodedPrompt
from millstream.text.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionReport(Report):
    """num_top, num_prompt_top: alternatives in `logprobs` and in `prompt_logprobs`."""

    echo: bool = False
    num_top: int = 0
    num_prompt_top: int = 0


@dataclass(frozen=True, slots=True)
class AnsweredPrompt:
    """A prompt, and the assembler of its first answer: the one that has the prompt's scores."""

    prompt: EncodedPrompt
    assembler: TextAssembler

    @property
    def scores(self) -> Sequence[TokenLogprob]:
        """Of the tokens from the second one on; all are there once the first token is."""
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
    token_ids, text, starts = asked.prompt
    ends = (*starts[1:], len(text))
    scores = (None, *asked.scores)
    for token, start, end, score in zip(token_ids, starts, ends, scores, strict=True):
        yield Entry(token, text[start:end], start, score)


def answer_entries(tokens: Iterable[TextLogprob], *, offset: int) -> Iterator[Entry]:
    """offset: characters of the choice's text before these tokens."""
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


def whole_completion(
    identity: Identity,
    choices: Sequence[WholeChoice],
    prompts: Sequence[AnsweredPrompt],
    usage: dict[str, Any],
    *,
    report: CompletionReport,
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    """The body of an answer that is not streamed. choices: all of the first prompt come first."""
    answer = identity.head("text_completion")
    per_prompt = len(choices) // len(prompts)
    answer["choices"] = [
        {"index": index} | _whole_choice(choice, prompts[index // per_prompt], report, vocabulary)
        for index, choice in enumerate(choices)
    ]
    answer["usage"] = usage
    return answer


def _whole_choice(
    choice: WholeChoice, asked: AnsweredPrompt, report: CompletionReport, vocabulary: Vocabulary
) -> dict[str, Any]:
    echo = asked.prompt.text if report.echo else ""
    content: dict[str, Any] = {
        "text": echo + choice.said.content,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
    }
    if report.logprobs:
        entries = list(prompt_entries(asked)) if report.echo else []
        entries += answer_entries(choice.logprobs, offset=len(echo))
        content["logprobs"] = text_logprobs(entries, vocabulary, num_top=report.num_top)
    if report.token_ids:
        content["token_ids"] = choice.token_ids
        content["prompt_token_ids"] = list(asked.prompt.token_ids)
    if report.prompt_logprobs:
        count = report.num_prompt_top
        scores = [score._replace(top=score.top[:count]) for score in asked.scores]
        content["prompt_logprobs"] = prompt_logprobs(scores, vocabulary)
    return content
