"""Conversations to token ids; what a template refuses is the client's fault and says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jinja2
import pytest
from tokenizers import Tokenizer

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.text.chat import ChatFormatter


class Template:
    """A chat template as transformers renders it, without transformers."""

    SOURCE = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}"
        "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )

    def apply_chat_template(
        self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize

        def raise_exception(message: str) -> None:
            raise jinja2.TemplateError(message)

        template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(self.SOURCE)
        return template.render(
            messages=conversation,
            add_generation_prompt=add_generation_prompt,
            raise_exception=raise_exception,
        )


@pytest.fixture
def chat(byte_tokenizer: Tokenizer) -> ChatFormatter:
    return ChatFormatter(Template(), byte_tokenizer)


def test_prompt_ends_where_the_answer_begins(
    chat: ChatFormatter, byte_tokenizer: Tokenizer
) -> None:
    ids = chat.encode([{"role": "user", "content": "héllo"}], max_context=100)
    assert byte_tokenizer.decode(list(ids)) == "user: héllo\nassistant: "


def test_template_refusal_is_the_clients(chat: ChatFormatter) -> None:
    with pytest.raises(InvalidRequest, match="no tools here") as caught:
        chat.encode([{"role": "tool", "content": "x"}], max_context=100)
    assert caught.value.param == "messages"
    with pytest.raises(InvalidRequest, match="refuses these messages"):
        chat.encode([{"role": "user"}], max_context=100)


def test_hopeless_length_is_refused_before_tokenising(chat: ChatFormatter) -> None:
    with pytest.raises(ContextTooLong, match=r"70\d\d characters.*100 tokens"):
        chat.encode([{"role": "user", "content": "x" * 7000}], max_context=100)


def test_truncation_of_the_tokenizer_file_is_switched_off(byte_tokenizer: Tokenizer) -> None:
    tokenizer = Tokenizer.from_str(byte_tokenizer.to_str())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    ids = ChatFormatter(Template(), tokenizer).encode(
        [{"role": "user", "content": "a much longer text"}], max_context=100
    )
    assert tokenizer.decode(list(ids)) == "user: a much longer text\nassistant: "


def test_many_threads_agree(chat: ChatFormatter) -> None:
    messages = [[{"role": "user", "content": f"text {index} " * 20}] for index in range(40)]
    expected = [chat.encode(one, max_context=1000) for one in messages]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: chat.encode(one, max_context=1000), messages)) == expected
