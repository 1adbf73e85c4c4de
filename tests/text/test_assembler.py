"""From events to text, finish reasons and counts."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from tokenizers import Tokenizer

from millstream.core.request import FinishReason, TokenEvent, TokenLogprob
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.vocabulary import Vocabulary


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


def test_stop_strings_within_min_tokens_are_text(byte_tokenizer: Tokenizer) -> None:
    ids = ids_of(byte_tokenizer, "a.b.c.d")
    events = [event(token) for token in ids]

    def text_with(min_tokens: int) -> TextDelta:
        assembler = TextAssembler(byte_tokenizer, prompt=[1], stops=["."], min_tokens=min_tokens)
        return assembler.push(events)

    assert len(ids) == 7
    assert text_with(1)[:2] == ("a", "stop")
    # The second token is the first dot.
    assert text_with(2)[:2] == ("a.b", "stop")
    assert text_with(4)[:2] == ("a.b.c", "stop")
    assert text_with(6)[:2] == ("a.b.c.d", None)


def test_stop_strings_and_tokens_are_shown_on_request(byte_tokenizer: Tokenizer) -> None:
    ids = ids_of(byte_tokenizer, "ab.c")

    def push(*, stops: list[str], include_stop: bool, skip: bool, end: int) -> str:
        assembler = TextAssembler(
            byte_tokenizer,
            prompt=[1],
            stops=stops,
            include_stop=include_stop,
            skip_special_tokens=skip,
        )
        return assembler.push([event(*ids), event(end, reason="stop")]).text

    plain, special = ids_of(byte_tokenizer, "z")[0], 0
    assert push(stops=["b.", "x"], include_stop=True, skip=True, end=plain) == "ab."
    assert push(stops=[], include_stop=True, skip=True, end=plain) == "ab.cz"
    assert push(stops=[], include_stop=False, skip=True, end=plain) == "ab.c"
    assert push(stops=[], include_stop=True, skip=True, end=special) == "ab.c"
    assert push(stops=[], include_stop=True, skip=False, end=special) == "ab.c<end>"
    assert push(stops=[], include_stop=False, skip=False, end=special) == "ab.c"


def test_special_tokens_are_shown_on_request(byte_tokenizer: Tokenizer) -> None:
    ids = [*ids_of(byte_tokenizer, "a"), 0, *ids_of(byte_tokenizer, "b")]
    for skip, expected in ((True, "ab"), (False, "a<end>b")):
        assembler = TextAssembler(byte_tokenizer, prompt=[1], stops=[], skip_special_tokens=skip)
        assert assembler.push([event(*ids, reason="length")]).text == expected


def test_tokens_and_prompt_scores_are_collected(byte_tokenizer: Tokenizer) -> None:
    assembler = TextAssembler(byte_tokenizer, prompt=[1, 2, 3], stops=["b"])
    scores = (scored(2), scored(3))
    assert assembler.push([TokenEvent(1, (), None, 0, (), scores)]) == TextDelta("")
    ids = ids_of(byte_tokenizer, "abcd")
    delta = assembler.push([event(*ids)])
    assert delta.token_ids == tuple(ids[:2]), "what comes after a stop string is nobody's"
    assert assembler.prompt_logprobs == list(scores)


def scored(token: int) -> TokenLogprob:
    return TokenLogprob(token, -1.0, 1, ())


def with_scores(
    tokenizer: Tokenizer, ids: list[int], stops: list[str], cuts: list[int], *, skip: bool = True
) -> list[TextDelta]:
    """The deltas of an answer whose tokens come in batches of the given sizes."""
    assembler = TextAssembler(
        tokenizer,
        prompt=ids_of(tokenizer, "a"),
        stops=stops,
        skip_special_tokens=skip,
        vocabulary=Vocabulary(tokenizer),
    )
    deltas, rest = [], list(ids)
    for size in [*cuts, len(ids)]:
        batch, rest = rest[:size], rest[size:]
        reason: FinishReason | None = None if rest else "length"
        if not batch:
            continue
        scores = tuple(map(scored, batch))
        deltas.append(assembler.push([TokenEvent(1, tuple(batch), reason, 0, scores)]))
        if deltas[-1].finish_reason is not None:
            break
    return deltas


def joined(deltas: list[TextDelta]) -> tuple[str, list[str], bytes, list[int]]:
    """Text, token texts, joined bytes and ids of the tokens reported."""
    entries = [entry for delta in deltas for entry in delta.logprobs]
    texts, raw, scores = zip(*entries, strict=True) if entries else ((), (), ())
    text = "".join(delta.text for delta in deltas)
    return text, list(texts), b"".join(raw), [score.token_id for score in scores]


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("abc. é日👍🏽", min_size=1, max_size=12),
    stop=st.sampled_from(["", ".", "bc", "👍", "é日"]),
    cuts=st.lists(st.integers(0, 4), max_size=12),
)
def test_reported_tokens_are_the_text(
    byte_tokenizer: Tokenizer, text: str, stop: str, cuts: list[int]
) -> None:
    ids = ids_of(byte_tokenizer, text)
    stops = [stop] if stop else []
    shown, texts, raw, reported = joined(with_scores(byte_tokenizer, ids, stops, cuts))
    assert reported == ids[: len(reported)]
    if stop not in text or not stop:
        assert (shown, "".join(texts), raw) == (text, text, text.encode())
        assert reported == ids
    else:
        # All tokens here but the merges of "hello world" are single bytes: none crosses a stop.
        assert shown == text[: text.index(stop)]
        assert "".join(texts) == shown
        assert raw == shown.encode()


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab. é日👍🏽", max_size=10), cuts=st.lists(st.integers(0, 3), max_size=9))
def test_batches_change_nothing(byte_tokenizer: Tokenizer, text: str, cuts: list[int]) -> None:
    ids = ids_of(byte_tokenizer, text + "!")
    once = joined(with_scores(byte_tokenizer, ids, ["b."], []))
    assert joined(with_scores(byte_tokenizer, ids, ["b."], cuts)) == once


def test_nothing_is_reported_before_its_text_is_shown(byte_tokenizer: Tokenizer) -> None:
    ids = ids_of(byte_tokenizer, "xENDy")
    deltas = with_scores(byte_tokenizer, ids, ["ENDE"], [1, 1, 1, 1])
    assert [delta.text for delta in deltas] == ["x", "", "", "", "ENDy"]
    assert [len(delta.logprobs) for delta in deltas] == [1, 0, 0, 0, 4]


def test_the_token_a_stop_string_begins_in_is_reported_whole(byte_tokenizer: Tokenizer) -> None:
    (hello,) = ids_of(byte_tokenizer, "hello")
    shown, texts, _, _ = joined(
        with_scores(byte_tokenizer, [hello, *ids_of(byte_tokenizer, "!?")], ["lo!"], [])
    )
    assert (shown, texts) == ("hel", ["hello"])


def test_tokens_without_text_are_not_reported(byte_tokenizer: Tokenizer) -> None:
    ids = [*ids_of(byte_tokenizer, "a"), 0, *ids_of(byte_tokenizer, "b")]
    assert joined(with_scores(byte_tokenizer, ids, [], []))[1] == ["a", "b"]
    assert joined(with_scores(byte_tokenizer, ids, [], [], skip=False))[1] == ["a", "<end>", "b"]
    assembler = TextAssembler(
        byte_tokenizer, prompt=[1], stops=[], vocabulary=Vocabulary(byte_tokenizer)
    )
    end = assembler.push([TokenEvent(1, tuple(ids[:1]), "stop", 0, (scored(ids[0]),))])
    assert end.logprobs == ()


def test_a_cut_off_character_is_reported_without_text(byte_tokenizer: Tokenizer) -> None:
    ids = ids_of(byte_tokenizer, "a日")
    shown, texts, raw, _ = joined(with_scores(byte_tokenizer, ids[:-1], [], []))
    assert (shown, "".join(texts)) == ("a", "a")
    assert raw == "a日".encode()[:-1]


def test_reported_tokens_are_the_text_of_pieces_too(piece_tokenizer: Tokenizer) -> None:
    ids = ids_of(piece_tokenizer, "hello world é!")
    shown, texts, raw, reported = joined(with_scores(piece_tokenizer, ids, [], [2, 1, 3]))
    assert "".join(texts) == shown
    assert raw == shown.encode()
    assert reported == ids
    assert shown.strip() == "hello world é!"
