"""From events to text, finish reasons and counts."""

from __future__ import annotations

from tokenizers import Tokenizer

from millstream.core.request import FinishReason, TokenEvent
from millstream.text.assembler import TextAssembler


def event(*tokens: int, reason: FinishReason | None = None, cached: int = 0) -> TokenEvent:
    return TokenEvent(1, tokens, reason, cached)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def test_end_token_is_counted_but_not_shown(byte_tokenizer: Tokenizer) -> None:
    assembler = TextAssembler(byte_tokenizer, prompt=[5, 6], stops=[])
    ids = ids_of(byte_tokenizer, "hi")
    # Not a special token, so only the finish reason tells that it is no text.
    end = ids_of(byte_tokenizer, "z")[0]
    text = "".join(assembler.push([event(token, cached=2)]).text for token in ids)
    delta = assembler.push([event(end, reason="stop", cached=2)])
    assert (text + delta.text, delta.finish_reason) == ("hi", "stop")
    assert (assembler.num_prompt, assembler.num_generated) == (2, len(ids) + 1)
    assert assembler.num_cached == 2


def test_length_flushes_what_was_held(byte_tokenizer: Tokenizer) -> None:
    assembler = TextAssembler(byte_tokenizer, prompt=[1], stops=["abc"])
    *ids, last = ids_of(byte_tokenizer, "xab")
    events = [*(event(token) for token in ids), event(last, reason="length")]
    text = "".join(assembler.push([one]).text for one in events[:-1])
    delta = assembler.push(events[-1:])
    assert (text + delta.text, delta.finish_reason) == ("xab", "length")


def test_stop_string_ends_inside_a_batch(byte_tokenizer: Tokenizer) -> None:
    assembler = TextAssembler(byte_tokenizer, prompt=[1], stops=["STOP"])
    ids = ids_of(byte_tokenizer, "before STOP after")
    delta = assembler.push([event(token) for token in ids])
    assert (delta.text, delta.finish_reason) == ("before ", "stop")
    assert assembler.num_generated < len(ids)


def test_stop_string_in_the_last_token_wins_over_length(byte_tokenizer: Tokenizer) -> None:
    assembler = TextAssembler(byte_tokenizer, prompt=[1], stops=["d"])
    *ids, last = ids_of(byte_tokenizer, "abcd")
    events = [*(event(token) for token in ids), event(last, reason="length")]
    delta = assembler.push(events)
    assert (delta.text, delta.finish_reason) == ("abc", "stop")


def test_batched_events_give_the_text_of_single_ones(byte_tokenizer: Tokenizer) -> None:
    ids = ids_of(byte_tokenizer, "naïve 日本 👍🏽 text")
    events = [event(token) for token in ids[:-1]] + [event(ids[-1], reason="length")]
    one = TextAssembler(byte_tokenizer, prompt=[1], stops=[])
    many = TextAssembler(byte_tokenizer, prompt=[1], stops=[])
    assert one.push(events).text == "".join(many.push([single]).text for single in events)
