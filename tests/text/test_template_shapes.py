"""A chat template gets messages in a shape that it can read, and nothing is lost without a word."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import jinja2.sandbox
import pytest
from tokenizers import Tokenizer

from millstream.errors import InvalidRequest, StartupError
from millstream.text import template_trial
from millstream.text.chat_prompt import ChatFormatter


class Template:
    """A chat template as transformers renders it, without transformers."""

    def __init__(self, source: str) -> None:
        self.chat_template = source
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = self._refuse
        self._environment = environment
        self._compiled: Any = None

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, **variables: Any) -> str:
        assert not tokenize
        self._compiled = self._compiled or self._environment.from_string(self.chat_template)
        text: str = self._compiled.render(messages=conversation, **variables)
        return text

    @staticmethod
    def _refuse(reason: str) -> None:
        raise jinja2.TemplateError(reason)


def call(arguments: Any, content: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    return {"role": "assistant", "content": content, "tool_calls": calls, **more}


ARGUMENTS = '{"city": "Tromsø", "days": 2}'
CUT = '{"contents": "once upon a ti'
USER = {"role": "user", "content": "one two"}
RESULT = {"role": "tool", "content": "cold", "tool_call_id": "call_1"}
HISTORY = [USER, call(ARGUMENTS), RESULT]

# One line for each way to write calls that models in use have.
CALLS = "{{ c.function.name }} {{ %s }}"
PLAIN = (
    "{%% for m in messages %%}<{{ m.role }}>{{ m.content or '' }}"
    "{%% for c in m.tool_calls or [] %%}" + CALLS + "{%% endfor %%}\n{%% endfor %%}"
)
AS_JSON = PLAIN % "c.function.arguments | tojson"
AS_PAIRS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name }}{% for k, v in c.function.arguments | items %} {{ k }}={{ v }}"
    "{% endfor %}{% endfor %}\n{% endfor %}"
)
DEEPSEEK = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and m['content'] is none %}"
    "{% for c in m['tool_calls'] %}<call>{{ c['function']['name'] + '\n' }}"
    "{{ c['function']['arguments'] + '</call>' }}{% endfor %}"
    "{% else %}<{{ m['role'] }}>{{ m['content'] + '\n' }}{% endif %}{% endfor %}"
)
GUARD = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}\n{% endfor %}"
)
MISTRAL = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{% if c.id is undefined or c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
    "{{ c | tojson }}{% endfor %}{{ m.tool_call_id }}\n{% endfor %}"
)
EITHER = (  # Llama 3.1
    "{% for m in messages %}<{{ m.role }}>{% if 'tool_calls' in m %}"
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
)
THOUGHTS = (
    "{%% for m in messages %%}<{{ m.role }}>{%% if m.%s %%}<think>{{ m.%s }}</think>{%% endif %%}"
    "{{ m.content }}\n{%% endfor %%}"
)


@pytest.fixture
def render(byte_tokenizer: Tokenizer) -> Any:
    def run(source: str, messages: list[Any], **options: Any) -> str:
        return ChatFormatter(Template(source), byte_tokenizer).render(messages, **options)

    return run


def test_a_template_that_writes_calls_where_content_is_null(render: Any) -> None:
    text = render(DEEPSEEK, HISTORY)
    assert text == f"<user>one two\n<call>get_weather\n{ARGUMENTS}</call><tool>cold\n"
    # Text beside the call would take its place.
    text = render(DEEPSEEK, [USER, call(ARGUMENTS, "Let me see."), RESULT])
    assert f"<assistant>Let me see.\n<call>get_weather\n{ARGUMENTS}</call>" in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("c.function.arguments | tojson", ARGUMENTS),
        ("'' + c.function.arguments", ARGUMENTS),
        ("c.function.arguments", ARGUMENTS),
        ("c.function.arguments.city", "Tromsø"),
    ],
)
def test_arguments_as_the_template_writes_them(render: Any, written: str, expected: str) -> None:
    text = render(PLAIN % written, HISTORY)
    assert text == f"<user>one two\n<assistant>get_weather {expected}\n<tool>cold\n"


def test_a_template_that_goes_through_parts_gets_parts(render: Any) -> None:
    assert render(GUARD, [USER, {"role": "assistant", "content": "Hi"}]) == (
        "<user>one two\n<assistant>Hi\n"
    )


PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
BOTH = GUARD.replace(
    "{% for part", "{% if m.content is string %}{{ m.content }}{% else %}{% for part"
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GUARD, "<user>onetwo\n"),
        (PLAIN % "c", "<user>one\ntwo\n"),
        (BOTH.replace("{% endfor %}\n", "{% endfor %}{% endif %}\n"), "<user>onetwo\n"),
        ("{% for m in messages %}{{ m.content[0].text }}{% endfor %}", "one\ntwo"),
        ("{% if topic %}{{ messages[0].content }}{% endif %}", "one\ntwo"),
    ],
)
def test_parts_stay_parts_where_they_are_read(render: Any, source: str, expected: str) -> None:
    messages = [{"role": "user", "content": PARTS}]
    assert render(source, messages, variables={"topic": "parts"}) == expected


@pytest.mark.parametrize(
    ("source", "arguments", "expected"),
    [
        (AS_JSON, CUT, json.dumps(CUT)),
        (PLAIN % "'' + c.function.arguments", CUT, CUT),
        (AS_PAIRS, CUT, f"arguments={CUT}"),
        (AS_JSON, "null", "{}"),
        (AS_PAIRS, "null", ""),
        (AS_JSON, "", "{}"),
        (AS_JSON, '["Oslo", 2]', '["Oslo", 2]'),
        (AS_PAIRS, '["Oslo", 2]', "arguments=['Oslo', 2]"),
        (AS_JSON, "3", "3"),
        (AS_PAIRS, "3", "arguments=3"),
        (AS_JSON, '{"x": NaN}', json.dumps('{"x": NaN}')),
        (AS_JSON, '{"x": 1e999}', json.dumps('{"x": 1e999}')),
        (AS_JSON, '{"a": "ø"}', '{"a": "ø"}'),
    ],
)
def test_arguments_that_are_no_object(
    render: Any, source: str, arguments: str, expected: str
) -> None:
    text = render(source, [USER, call(arguments), RESULT])
    assert text == f"<user>one two\n<assistant>get_weather {expected}".rstrip() + "\n<tool>cold\n"


@pytest.mark.parametrize(
    "arguments", ['{"a": "\\ud83d"}', '{"a": ' + "[" * 990 + "]" * 990 + "}", "[" * 100_000]
)
@pytest.mark.parametrize("source", [AS_JSON, AS_PAIRS, DEEPSEEK])
def test_arguments_that_nobody_can_write_are_refused_by_name(
    render: Any, source: str, arguments: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(source, [USER, call(arguments), RESULT])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    "source", ["{{ boom.memory() }}", "{{ boom.assertion() }}", "{{ boom.runtime() }}"]
)
def test_whatever_a_template_raises_is_a_refusal(render: Any, source: str) -> None:
    def fail(error: type[Exception]) -> Any:
        def run() -> None:
            raise error("boom")

        return run

    errors = {"memory": MemoryError, "assertion": AssertionError, "runtime": RuntimeError}
    boom = {name: fail(error) for name, error in errors.items()}
    with pytest.raises(InvalidRequest, match="refuses these messages"):
        render(source, [USER], variables={"boom": boom})


@pytest.mark.parametrize("read", ["reasoning", "reasoning_content", "thinking"])
@pytest.mark.parametrize("sent", ["reasoning", "reasoning_content", "thinking"])
def test_reasoning_has_the_name_that_the_template_reads(render: Any, read: str, sent: str) -> None:
    said = {"role": "assistant", "content": "Hi", sent: "A greeting."}
    assert "<think>A greeting.</think>Hi" in render(THOUGHTS % (read, read), [USER, said])


def test_reasoning_on_a_condition_has_the_name_that_the_source_mentions(render: Any) -> None:
    source = "{% if keep %}{{ messages[0].reasoning }}{% endif %}{{ messages[0].content }}"
    said = {"role": "assistant", "content": "Hi", "reasoning_content": "A greeting."}
    assert render(source, [said], variables={"keep": True}) == "A greeting.Hi"


def test_ids_of_calls_are_short_where_the_template_asks_for_it(render: Any) -> None:
    text = render(MISTRAL, HISTORY)
    sent = text.split('"id": "')[1].split('"')[0]
    assert len(sent) == 9
    assert text.endswith(f"cold{sent}\n")


def test_text_beside_calls_is_a_message_where_only_one_is_written(render: Any) -> None:
    text = render(EITHER, [USER, call(ARGUMENTS, "Let me see."), RESULT])
    assert "<assistant>Let me see.\n<assistant>{" in text
    assert render(EITHER, HISTORY).count("<assistant>") == 1


DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
FIRST_ONLY = "{{ messages[0].content }}"
NO_CALLS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
NO_VALUES = PLAIN % "c.function.arguments | length"


@pytest.mark.parametrize(
    ("source", "messages", "param"),
    [
        (DROPS_SYSTEM, [{"role": "system", "content": "Be brief."}, USER], "messages[0].content"),
        (FIRST_ONLY, [USER, {"role": "assistant", "content": "Rain."}], "messages[1].content"),
        (NO_CALLS, HISTORY, "messages[1].tool_calls[0].function.name"),
        (NO_VALUES, HISTORY, "messages[1].tool_calls[0].function.arguments"),
        (EITHER.replace("m.content }}", "'' }}"), [USER], "messages[0].content"),
    ],
)
def test_a_text_that_the_template_drops_is_refused_by_name(
    render: Any, source: str, messages: list[Any], param: str
) -> None:
    with pytest.raises(InvalidRequest, match="leaves this text out") as caught:
        render(source, messages)
    assert caught.value.param == param


# What a template keeps of a system text: two places, and what it writes between them.
SHORTENS = (
    "{%% for m in messages %%}{%% if m.role == 'system' %%}{{ m.content[:60] }}%s"
    "{{ m.content[%s:] }}{%% else %%}{{ m.content }}{%% endif %%}\n{%% endfor %%}"
)
LONG = " ".join(f"Rule {number} is a rule." for number in range(40))


@pytest.mark.parametrize(
    "system",
    [
        LONG,
        f"  {LONG}\n",
        [{"type": "text", "text": text} for text in ("Hear.", LONG, LONG.upper(), "The end.")],
        LONG + " [...] " + LONG,
        "[...] " * 100 + LONG,
    ],
)
def test_a_text_may_be_shortened_where_the_model_sees_it(render: Any, system: Any) -> None:
    messages = [{"role": "system", "content": system}, USER, {"role": "system", "content": system}]
    assert render(SHORTENS % ("\n[...]\n", -40), messages).count("\n[...]\n") == 2


@pytest.mark.parametrize(
    "source",
    [
        SHORTENS % ("", -40),  # nothing says so
        SHORTENS % ("\n...\n", -40),
        SHORTENS % ("\n[...]\n", 9999),  # the end is not there
        (SHORTENS % ("\n[...]\n", -40)).replace("[:60]", "[30:60]"),
        (SHORTENS % ("\n[...]\n", -40)).replace("[-40:]", "[-80:-70] }}{{ m.content[-40:]"),
    ],
)
def test_a_text_that_is_shortened_otherwise_is_refused(render: Any, source: str) -> None:
    with pytest.raises(InvalidRequest, match="leaves this text out") as caught:
        render(source, [USER, {"role": "system", "content": LONG}])
    assert caught.value.param == "messages[1].content"


SOFT_SWITCH = "{% for m in messages %}{{ m.content.replace('/no_think', '') }}{% endfor %}"
NO_THOUGHTS = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (PLAIN % "c", [{"role": "user", "content": " \n"}]),
        (
            "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
            [USER | {"content": " a \n"}],
        ),
        (SOFT_SWITCH, [{"role": "system", "content": "/no_think"}, USER]),
        (SOFT_SWITCH, [{"role": "system", "content": "Be /no_think brief."}, USER]),
        (NO_THOUGHTS, [{"role": "assistant", "content": "<think>\nh\n</think>\n\nHi"}, USER]),
        ("{{ messages | tojson }}", [USER | {"content": 'He said: "ø\n\t"'}]),
        ("{{ messages }}", [USER | {"content": 'It\'s "ø"\n'}]),
        (
            "{% for m in messages | sort(attribute='role') %}{{ m.content }}{% endfor %}",
            [USER, {"role": "system", "content": "Be brief."}],
        ),
        (THOUGHTS % ("none", "none"), [USER | {"role": "assistant", "reasoning": "gone"}]),
    ],
)
def test_what_templates_do_to_texts_is_no_loss(
    render: Any, source: str, messages: list[Any]
) -> None:
    render(source, messages)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for m in messages %}{{ m.content }}", "syntax error in line 1"),
        ("{{ messages | no_such_filter }}", "syntax error in line 1: No filter named"),
        ("{{ messages.append(1) }}", "its sandbox forbids"),
        ("{{ ''.__class__.__mro__ }}", "its sandbox forbids"),
    ],
)
def test_a_template_that_cannot_be_used_ends_the_start(
    byte_tokenizer: Tokenizer, source: str, reason: str
) -> None:
    with pytest.raises(StartupError, match=reason):
        ChatFormatter(Template(source), byte_tokenizer)


def test_a_template_without_an_end_ends_the_start(
    byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_trial, "TRIAL_SECONDS", 0.05)
    source = "{% for a in range(90000) %}{% for b in range(90) %}{% endfor %}{% endfor %}"
    with pytest.raises(StartupError, match="does not come to an end"):
        ChatFormatter(Template(source), byte_tokenizer)
