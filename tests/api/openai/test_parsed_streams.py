"""An answer that is parsed while its tokens arrive one at a time, up to the events."""

from __future__ import annotations

from typing import cast

import pytest
from tokenizers import Tokenizer

from millstream.api.openai.chat.builder import ChatBuilder
from millstream.api.openai.generate.answer import Report, WholeChoice
from millstream.core.request import FinishReason, TokenEvent
from millstream.generation.choices import Choice
from millstream.runtime.stream import TokenStream
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.vocabulary import Vocabulary
from tests.api.openai.test_builder import IDENTITY, USAGE, events
from tests.api.openai.test_choices import ScriptedStream
from tests.api.talk import joined, whole
from tests.text.parsing.samples import SAMPLES, Sample

PARALLEL = SAMPLES["hermes, parallel, with thoughts and text"]


async def deltas_of(
    sample: Sample, tokenizer: Tokenizer, *, max_calls: int | None = None
) -> tuple[list[TextDelta], int]:
    """One for each token that was read, and how many were left."""
    stream = ScriptedStream()
    *tokens, last = tokenizer.encode(sample.text).ids
    for token in tokens:
        stream.put(token)
    stream.put(last, "length")
    choice = Choice(
        cast(TokenStream, stream),
        TextAssembler(tokenizer, prompt=[1], stops=[]),
        parser=sample.parser(),
        max_calls=max_calls,
    )
    deltas = [await choice.advance()]
    while deltas[-1].finish_reason is None:
        deltas.append(await choice.advance())
    assert stream.is_closed
    return deltas, stream.news.qsize()


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
async def test_joined_events_are_the_whole_answer(
    sample: Sample, byte_tokenizer: Tokenizer
) -> None:
    deltas, _ = await deltas_of(sample, byte_tokenizer)
    vocabulary = Vocabulary(byte_tokenizer)
    stream = ChatBuilder(IDENTITY, report=Report(), vocabulary=vocabulary)
    raw = b"".join(stream.chunk(0, delta) for delta in deltas)
    body = ChatBuilder(IDENTITY, report=Report(), vocabulary=vocabulary).whole(
        [WholeChoice.of(deltas)], USAGE
    )
    answer = joined(events(raw))
    assert answer == whole(body["choices"][0])
    assert (answer.content, answer.reasoning) == (sample.answer.content, sample.answer.reasoning)
    assert answer.calls == [(call.name, call.arguments) for call in sample.answer.calls]


async def test_the_answer_ends_before_one_call_too_many(byte_tokenizer: Tokenizer) -> None:
    deltas, num_left = await deltas_of(PARALLEL, byte_tokenizer, max_calls=1)
    assert num_left > 0
    assert deltas[-1].finish_reason == "stop"
    said = WholeChoice.of(deltas).said
    assert said.calls == PARALLEL.answer.calls[:1]
    assert said.content == "I look."
    deltas, num_left = await deltas_of(PARALLEL, byte_tokenizer, max_calls=2)
    assert num_left == 0
    assert WholeChoice.of(deltas).said == PARALLEL.answer


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
async def test_reasoning_is_counted_whatever_comes_at_once(
    sample: Sample, byte_tokenizer: Tokenizer
) -> None:
    """A reader that falls behind gets many tokens in one delta."""
    one_by_one, _ = await deltas_of(sample, byte_tokenizer)
    tokens = tuple(byte_tokenizer.encode(sample.text).ids)
    for size in (3, 50, len(tokens)):
        stream = BatchStream(tokens, size)
        choice = Choice(
            cast(TokenStream, stream),
            TextAssembler(byte_tokenizer, prompt=[1], stops=[]),
            parser=sample.parser(),
        )
        deltas = [await choice.advance()]
        while deltas[-1].finish_reason is None:
            deltas.append(await choice.advance())
        assert WholeChoice.of(deltas).said == WholeChoice.of(one_by_one).said
        counts = [sum(delta.num_reasoning for delta in made) for made in (deltas, one_by_one)]
        assert counts[0] == counts[1]
        assert (counts[0] > 0) == bool(sample.answer.reasoning)
        assert counts[0] <= len(tokens)


class BatchStream:
    """Gives so many tokens at once."""

    def __init__(self, tokens: tuple[int, ...], size: int) -> None:
        self._batches = [tokens[i : i + size] for i in range(0, len(tokens), size)]

    async def __anext__(self) -> list[TokenEvent]:
        batch = self._batches.pop(0)
        *events, last = [TokenEvent(1, (token,), None, 0) for token in batch]
        return [*events, last._replace(finish_reason=None if self._batches else "length")]

    def tell(self, num_tokens: int) -> None:
        pass

    def close(self, finish_reason: FinishReason | None = None) -> None:
        pass
