"""Log probabilities of every token, those included that make no text."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from tokenizers import Tokenizer

from millstream.core.request import FinishReason, TokenEvent, TokenLogprob
from millstream.text.assembler import TextAssembler, TextDelta
from millstream.text.vocabulary import Vocabulary

END = 0


def push(
    tokenizer: Tokenizer,
    ids: list[int],
    *,
    reason: FinishReason,
    every: bool = True,
    stops: tuple[str, ...] = (),
    sizes: tuple[int, ...] = (),
) -> list[TextDelta]:
    """The deltas of an answer, in batches of these sizes and one with the rest."""
    assembler = TextAssembler(
        tokenizer,
        prompt=[1],
        stops=stops,
        vocabulary=Vocabulary(tokenizer),
        scores_every_token=every,
    )
    events = [
        TokenEvent(1, (token,), None, 0, (TokenLogprob(token, -1.0, 1, ()),)) for token in ids
    ]
    events[-1] = events[-1]._replace(finish_reason=reason)
    deltas: list[TextDelta] = []
    for size in (*sizes, len(events)):
        batch, events = events[:size], events[size:]
        if batch and not (deltas and deltas[-1].finish_reason):
            deltas.append(assembler.push(batch))
    return deltas


def entries(deltas: list[TextDelta]) -> list[tuple[int, str]]:
    return [(entry.score.token_id, entry.text) for delta in deltas for entry in delta.logprobs]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text).ids
    return ids


def test_the_end_of_the_turn_has_an_entry_without_text(byte_tokenizer: Tokenizer) -> None:
    ids = [*ids_of(byte_tokenizer, "ab"), END]
    assert entries(push(byte_tokenizer, ids, reason="stop")) == [
        (ids[0], "a"),
        (ids[1], "b"),
        (END, ""),
    ]
    assert entries(push(byte_tokenizer, ids, reason="stop", every=False)) == [
        (ids[0], "a"),
        (ids[1], "b"),
    ]


def test_special_tokens_inside_keep_their_place(byte_tokenizer: Tokenizer) -> None:
    a, b = ids_of(byte_tokenizer, "ab")
    found = entries(push(byte_tokenizer, [END, a, END, b], reason="length"))
    assert found == [(END, ""), (a, "a"), (END, ""), (b, "b")]


def test_a_cut_character_comes_before_the_end(byte_tokenizer: Tokenizer) -> None:
    cut = ids_of(byte_tokenizer, "👍")[:-1]
    found = entries(push(byte_tokenizer, [*cut, END], reason="stop"))
    assert found == [(token, "") for token in (*cut, END)]


def test_tokens_of_a_stop_string_have_none(byte_tokenizer: Tokenizer) -> None:
    ids = ids_of(byte_tokenizer, "a.b")
    deltas = push(byte_tokenizer, ids, reason="length", stops=(".b",))
    assert entries(deltas) == [(ids[0], "a")]


def test_a_replacement_mark_at_the_end_has_its_text(byte_tokenizer: Tokenizer) -> None:
    """It is held until the end, because it could be a cut character."""
    ids = ids_of(byte_tokenizer, "a\ufffd")
    for every in (True, False):
        deltas = push(byte_tokenizer, ids, reason="length", every=every)
        assert "".join(delta.text for delta in deltas) == "a\ufffd"
        assert "".join(text for _, text in entries(deltas)) == "a\ufffd"


def test_text_that_a_special_token_sets_free_is_that_of_those_before(
    byte_tokenizer: Tokenizer,
) -> None:
    """Marks that could be a cut character are held, but not for ever."""
    ids = [*ids_of(byte_tokenizer, "\ufffd" * 4), END]
    for every in (True, False):
        found = entries(push(byte_tokenizer, ids, reason="length", every=every))
        assert [token for token, _ in found] == (ids if every else ids[:-1])
        assert [text for _, text in found if text] == ["\ufffd" * 4]
        assert found[11][1]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["a", "é", "👍", "<end>", ".", "hello", "\ufffd"]), min_size=1),
    st.lists(st.integers(1, 4), max_size=6),
    st.booleans(),
)
def test_every_token_once_however_they_come(
    byte_tokenizer: Tokenizer, parts: list[str], sizes: list[int], is_cut: bool
) -> None:
    ids = ids_of(byte_tokenizer, "".join(parts))
    ids = ids[: len(ids) // 2 + 1] if is_cut else ids
    deltas = push(byte_tokenizer, ids, reason="length", sizes=tuple(sizes))
    found = entries(deltas)
    assert [token for token, _ in found] == ids
    assert "".join(text for _, text in found) == "".join(delta.text for delta in deltas)
