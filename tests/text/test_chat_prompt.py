"""Conversations to token ids; what a template refuses is the client's fault and says so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import jinja2
import pytest
from tokenizers import Tokenizer

from millstream.errors import ContextTooLong, InvalidRequest
from millstream.text.chat_prompt import ChatFormatter
from millstream.text.template_variables import RESERVED_VARIABLES


@cache
def compiled(source: str) -> jinja2.Template:
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(source)


class Template:
    """A chat template as transformers renders it, without transformers."""

    SOURCE = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}"
        "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% if enable_thinking %}<think>{% endif %}"
        "{% endif %}"
    )
    chat_template = SOURCE

    def apply_chat_template(
        self,
        conversation: Any,
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        continue_final_message: bool,
        **variables: Any,
    ) -> str:
        assert not tokenize

        def raise_exception(message: str) -> None:
            raise jinja2.TemplateError(message)

        text = compiled(self.chat_template).render(
            {
                "messages": conversation,
                "add_generation_prompt": add_generation_prompt,
                "raise_exception": raise_exception,
                "enable_thinking": False,
            }
            | variables
        )
        return text.removesuffix("\n") if continue_final_message else text


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


HELLO = [{"role": "user", "content": "hello"}]


def test_the_turn_can_be_left_open_or_out(chat: ChatFormatter, byte_tokenizer: Tokenizer) -> None:
    def text(*, add: bool, go_on: bool) -> str:
        ids = chat.encode(
            [*HELLO, {"role": "assistant", "content": "I"}],
            max_context=100,
            add_generation_prompt=add,
            continue_final_message=go_on,
        )
        decoded: str = byte_tokenizer.decode(list(ids))
        return decoded

    assert text(add=True, go_on=False) == "user: hello\nassistant: I\nassistant: "
    assert text(add=False, go_on=False) == "user: hello\nassistant: I\n"
    assert text(add=False, go_on=True) == "user: hello\nassistant: I"


def test_variables_reach_the_template(chat: ChatFormatter, byte_tokenizer: Tokenizer) -> None:
    ids = chat.encode(HELLO, max_context=100, variables={"enable_thinking": True})
    assert byte_tokenizer.decode(list(ids)) == "user: hello\nassistant: <think>"


@pytest.mark.parametrize("name", [*sorted(RESERVED_VARIABLES), "thinking", "enable", ""])
def test_variables_that_are_not_the_clients_are_refused(name: str, chat: ChatFormatter) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat.check_variables({"enable_thinking": True, name: 1})
    assert caught.value.param == "chat_template_kwargs"
    assert repr(name) in caught.value.message
    chat.check_variables({"enable_thinking": True})


@pytest.mark.parametrize(
    ("source", "effort", "expected"),
    [
        ("{{ reasoning_effort }} {{ enable_thinking }}", "low", {"reasoning_effort": "low"}),
        ("{{ enable_thinking }}", "low", {"enable_thinking": True}),
        ("{{ enable_thinking }}", "none", {"enable_thinking": False}),
        ("{{ thinking }} {{ my_enable_thinking }}", "low", None),
    ],
)
def test_reasoning_effort_in_the_templates_words(
    source: str, effort: str, expected: dict[str, Any] | None, byte_tokenizer: Tokenizer
) -> None:
    template = Template()
    template.chat_template = source
    formatter = ChatFormatter(template, byte_tokenizer)
    if expected is not None:
        assert formatter.reasoning_variables(effort) == expected
        return
    with pytest.raises(InvalidRequest) as caught:
        formatter.reasoning_variables(effort)
    assert caught.value.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ x / 0 }}", 1),
        ("{{ x.a.b }}", {}),
        ("{{ x + 1 }}", "text"),
        ("{{ range(x) | list }}", "text"),
        ("{{ [1][x] + 1 }}", 5),
    ],
)
def test_values_a_template_cannot_take_are_the_clients(
    source: str, value: Any, byte_tokenizer: Tokenizer
) -> None:
    template = Template()
    template.chat_template = source
    with pytest.raises(InvalidRequest, match="refuses these messages"):
        ChatFormatter(template, byte_tokenizer).encode(
            HELLO, max_context=100, variables={"x": value}
        )
