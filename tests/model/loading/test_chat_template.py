"""Chat templates of real tokenizers: null values reach them, and a file may bring another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.evaluate import MODEL
from millstream.errors import InvalidRequest, StartupError
from millstream.model.loading.chat_template import LoadedTemplate, use_template
from millstream.model.loading.tokenizer import load_tokenizer
from millstream.text.chat_prompt import ChatFormatter

USER = {"role": "user", "content": "Weather?"}
ARGUMENTS = '{"city": "Tromsø", "days": 2}'
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ARGUMENTS},
        }
    ],
}
RESULT = {"role": "tool", "content": "cold", "tool_call_id": "call_1"}

NULL_ONLY = (
    "{{ bos_token }}{% for m in messages %}{% if m.content is none %}{% for c in m.tool_calls %}"
    "{{ c.function.name + c.function.arguments }}{% endfor %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer(MODEL, trust_remote_code=False)


def formatter(tokenizer: Any) -> ChatFormatter:
    return ChatFormatter(LoadedTemplate(tokenizer), tokenizer.backend_tokenizer)


def test_the_demo_model_is_rendered_as_transformers_does(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, USER, CALL, RESULT]
    options: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": True}
    expected = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    variables = {"enable_thinking": True}
    assert formatter(tokenizer).render(messages, variables=variables) == expected
    continued = [USER, {"role": "assistant", "content": "It is "}]
    expected = tokenizer.apply_chat_template(continued, tokenize=False, continue_final_message=True)
    text = formatter(tokenizer).render(
        continued, add_generation_prompt=False, continue_final_message=True
    )
    assert text == expected


def test_null_reaches_a_template_that_asks_for_it(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(NULL_ONLY, encoding="utf-8")
    use_template(tokenizer, tmp_path / "t.jinja")
    text = formatter(tokenizer).render([USER, CALL, RESULT])
    assert f"Weather?get_weather{ARGUMENTS}cold" in text


def test_a_tokenizer_with_a_renderer_of_its_own_is_asked(tokenizer: Any) -> None:
    class Own(type(tokenizer)):  # type: ignore[misc]
        def apply_chat_template(self, conversation: Any, **options: Any) -> str:
            return "own " + " ".join(str(message["content"]) for message in conversation)

    tokenizer.__class__ = Own
    assert formatter(tokenizer).render([USER]) == "own Weather?"


def test_without_a_template_there_is_no_chat(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    chat = formatter(tokenizer)
    for ask in (
        lambda: chat.render([USER]),
        lambda: chat.check_variables({"enable_thinking": True}),
    ):
        with pytest.raises(InvalidRequest, match="no chat template") as caught:
            ask()
        assert caught.value.param == "messages"
    assert not chat.reads("tools")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"", "empty"), (b" \n", "empty"), (b"\xff", "no UTF-8")],
)
def test_a_file_without_a_template_ends_the_start(
    content: bytes | None, reason: str, tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "t.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match=rf"--chat-template: .*{reason}"):
        use_template(tokenizer, path)
