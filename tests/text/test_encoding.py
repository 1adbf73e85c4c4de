"""What a tokenizer makes of texts, and what becomes of those it cannot read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.detokenizer import Detokenizer
from millstream.text.encoding import decode, encode
from millstream.text.raw_prompt import decode_ids, encode_text
from millstream.text.vocabulary import Vocabulary


@pytest.fixture
def giving_up() -> Tokenizer:
    """A tokenizer whose pattern tries too many ways through a text of many a."""
    tokenizer = Tokenizer(models.BPE({chr(i): i for i in range(128)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    return tokenizer


class Template:
    chat_template = "{{ messages }}"

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        return str(conversation[0]["content"])


HARD = "a" * 100


@pytest.mark.parametrize(
    ("read", "param"),
    [
        (lambda t: encode(t, HARD, param="x"), "x"),
        (lambda t: ChatFormatter(Template(), t).tokenize(HARD, max_context=None), "messages"),
        (
            lambda t: encode_text(t, HARD, add_special_tokens=False, max_context=1000),
            "prompt",
        ),
        (lambda t: Vocabulary(t).sequences(HARD), "bad_words"),
    ],
)
def test_a_tokenizer_that_gives_up_refuses(
    read: Callable[[Tokenizer], Any], param: str, giving_up: Tokenizer
) -> None:
    with pytest.raises(InvalidRequest, match="cannot read this text: Onig") as caught:
        read(giving_up)
    assert caught.value.param == param
    assert encode(giving_up, "aab", param="x").ids, "it can still be asked"


def test_a_tokenizer_that_gives_up_ends_an_answer_all_the_same(giving_up: Tokenizer) -> None:
    """Whether a mark at the end was said, or is a character cut off, is asked of the tokenizer."""
    vocabulary = {chr(i): i for i in range(128)} | {HARD + "\ufffd": 128}
    giving_up.model = models.BPE(vocabulary, [])
    answer = Detokenizer(giving_up)
    assert answer.push(128) + answer.flush() == HARD


def test_texts_and_ids_are_those_of_the_tokenizer(byte_tokenizer: Tokenizer) -> None:
    text = "Grüße, 😀 <end> x"
    ids = byte_tokenizer.encode(text, add_special_tokens=False).ids
    assert encode(byte_tokenizer, text, param="x").ids == ids
    assert decode(byte_tokenizer, ids) == byte_tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    "work",
    [
        lambda tokenizer, text, ids: encode(tokenizer, text, param="x"),
        lambda tokenizer, text, ids: decode(tokenizer, ids),
    ],
)
def test_other_threads_go_on(work: Callable[..., Any], byte_tokenizer: Tokenizer) -> None:
    text = "some words and more " * 50_000
    ids = byte_tokenizer.encode_batch([text])[0].ids
    is_done = threading.Event()

    def run() -> None:
        work(byte_tokenizer, text, ids)
        is_done.set()

    thread = threading.Thread(target=run)
    thread.start()
    # With the interpreter kept, the thread would be over before this one runs again.
    assert not is_done.is_set()
    thread.join()


def test_what_does_not_fit_is_not_looked_at_any_further(byte_tokenizer: Tokenizer) -> None:
    text = "some words " * 100
    prompt = encode_text(byte_tokenizer, text, add_special_tokens=False, max_context=50)
    assert (len(prompt.token_ids) > 50, prompt.starts) == (True, ())
    echoed = decode_ids(byte_tokenizer, prompt.token_ids, vocab_size=300, max_context=50)
    assert (echoed.token_ids, echoed.text, echoed.starts) == (prompt.token_ids, "", ())
    with pytest.raises(ContextTooLong):
        encode_text(byte_tokenizer, text * 10, add_special_tokens=False, max_context=50)
