"""What an answer has beside its text: reasoning, calls, a form, other choices. Real engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream import Answer, Delta, Engine
from millstream.errors import InvalidRequest, RequestCancelled

QUESTION = "What is the weather in Paris?"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"enum": [7, 8]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_an_answer_goes_into_the_history(engine: Engine) -> None:
    history: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    answer = engine.chat(history, tools=TOOLS).result()
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.tool_calls
    assert (call.index, call.name, json.loads(call.arguments)) == (
        0,
        "get_weather",
        {"city": "Paris"},
    )
    assert len(call.id) == 9
    history.append(answer.message)
    history.append({"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"})
    last = engine.chat(history, tools=TOOLS).result()
    assert last.finish_reason == "stop"
    assert last.text == "The weather in Paris is sunny, 21 degrees."
    assert last.message == {"role": "assistant", "content": last.text}


def test_deltas_add_up_to_the_call(engine: Engine) -> None:
    deltas = list(engine.chat(QUESTION, tools=TOOLS, tool_choice="required"))
    news = [call for delta in deltas for call in delta.tool_calls]
    assert [(call.name, bool(call.id)) for call in news[:1]] == [("get_weather", True)]
    assert {(call.name, call.id) for call in news[1:]} == {("", "")}
    assert json.loads("".join(call.arguments for call in news)) == {"city": "Paris"}
    assert deltas[-1].finish_reason == "tool_calls"


def test_a_tool_that_must_be_called_is(engine: Engine) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    answer = engine.chat("Hi", tools=TOOLS, tool_choice=named, max_tokens=200).result()
    assert [call.name for call in answer.tool_calls] == ["get_weather"]
    assert answer.finish_reason == "stop"


def test_reasoning_is_told_apart_counted_and_may_be_hidden(engine: Engine) -> None:
    options: Any = {"chat_template_kwargs": {"enable_thinking": True}}
    shown = engine.chat("What is 27 + 58?", **options).result()
    hidden = engine.chat("What is 27 + 58?", include_reasoning=False, **options).result()
    assert shown.reasoning
    assert shown.reasoning not in shown.text
    assert shown.message["reasoning_content"] == shown.reasoning
    assert (hidden.reasoning, hidden.text) == ("", shown.text)
    assert hidden.message == {"role": "assistant", "content": hidden.text}
    assert 0 < hidden.usage.reasoning_tokens < hidden.usage.completion_tokens
    assert hidden.usage.reasoning_tokens == shown.usage.reasoning_tokens


def test_a_parser_can_be_switched_off() -> None:
    with Engine.from_pretrained("demo", reasoning_parser="none", tool_call_parser="none") as plain:
        answer = plain.chat(
            "What is 27 + 58?", chat_template_kwargs={"enable_thinking": True}
        ).result()
        assert (answer.reasoning, "</think>" in answer.text) == ("", True)
        with pytest.raises(InvalidRequest, match="cannot call") as caught:
            plain.chat(QUESTION, tools=TOOLS).result()
        assert caught.value.param == "tools"


@pytest.mark.parametrize("raw", [False, True])
def test_an_answer_has_the_form_that_is_asked_for(engine: Engine, *, raw: bool) -> None:
    def answer(**options: Any) -> Answer:
        whole: Any = {"raw": raw, "max_tokens": 100, "show_progress": False, **options}
        return engine.generate(["Who are you?"], **whole)[0]

    wanted = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}}
    pet = json.loads(answer(response_format=wanted).text)
    assert pet.keys() == {"name", "age"}
    assert pet["age"] in (7, 8)
    assert answer(structured_outputs={"choice": ("red", "blue")}).text in ("red", "blue")
    assert answer(structured_outputs={"regex": "x{3}"}).text == "xxx"


def test_what_is_left_to_the_model_is_said(engine: Engine) -> None:
    loose = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 2}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": loose}}
    with engine.chat("Hi", response_format=wanted, max_tokens=20) as stream:
        assert stream.unenforced == ("uniqueItems",)
        assert stream.result().unenforced == ("uniqueItems",)
    wanted["json_schema"]["strict"] = True
    with pytest.raises(InvalidRequest, match="uniqueItems"):
        engine.chat("Hi", response_format=wanted).result()


def test_several_choices(engine: Engine) -> None:
    options: Any = {"n": 3, "temperature": 2.0, "seed": 4, "max_tokens": 6}
    deltas = list(engine.complete("The", **options))
    assert {delta.index for delta in deltas} == {0, 1, 2}
    assert [delta.usage is not None for delta in deltas].index(True) == len(deltas) - 1
    (answer,) = engine.generate(["The"], raw=True, show_progress=False, **options)
    assert answer.choices == (answer, *answer.others)
    assert len(answer.others) == 2
    for index, choice in enumerate(answer.choices):
        own = [delta for delta in deltas if delta.index == index]
        assert choice.text == "".join(delta.text for delta in own)
        assert choice.finish_reason == own[-1].finish_reason
    assert len({choice.token_ids for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens == sum(len(c.token_ids) for c in answer.choices)
    with pytest.raises(InvalidRequest, match=r"^n: ") as caught:
        engine.chat("Hi", n=129)
    assert caught.value.param == "n"


def test_the_stop_that_ended_it_is_named(engine: Engine) -> None:
    assert engine.chat("Count to 5", stop=["\n3"]).result().stop_reason == "\n3"
    assert engine.chat("Count to 5").result().stop_reason is None


def test_a_request_can_be_cancelled_by_its_id(engine: Engine) -> None:
    with engine.chat("Count to 5", ignore_eos=True, request_id="mine", n=2) as stream:
        next(stream)
        assert stream.request_id == "mine"
        assert engine.cancel("mine")
        with pytest.raises(RequestCancelled):
            list(stream)
    assert not engine.cancel("mine")
    with engine.chat("Hi", ignore_eos=True) as other:
        assert other.request_id
        assert engine.cancel(other.request_id)


def test_statistics_know_the_places(engine: Engine) -> None:
    with engine.chat("Count to 5", ignore_eos=True, n=2) as stream:
        next(stream)
        statistics = engine.statistics
        assert (statistics.num_open, statistics.num_free) == (2, None)
        assert statistics.num_blocks_used > 0


def test_a_request_may_be_given_a_time_limit(engine: Engine) -> None:
    with pytest.raises(InvalidRequest) as caught:
        engine.chat("Hi", timeout=-1)
    assert caught.value.param == "timeout"
    answer = engine.chat("Count to 5", timeout=500).result()
    assert isinstance(answer, Answer)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": 5}, "tools"),
        ({"tools": [{1: 2}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": object()}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "schema": {"x": {1, 2}}}}, "response_format"),
        ({"structured_outputs": {"regex": b"x"}}, "structured_outputs"),
        ({"structured_outputs": {"json": {"a": float("nan")}}}, "structured_outputs"),
        ({"stop": "\ud800"}, "stop"),
        ({"seed": 2**2000}, "seed"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"no_such_thing": 1}, "no_such_thing"),
    ],
)
def test_bad_options_are_one_exception_that_names_them(
    engine: Engine, options: dict[str, Any], param: str
) -> None:
    for ask in (
        lambda: engine.chat("Hi", **options),
        lambda: engine.generate(["Hi"], show_progress=False, **options),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ask()
        assert caught.value.param == param


def test_bad_messages_are_the_same_exception(engine: Engine) -> None:
    wrong: list[tuple[Any, str]] = [
        ([{"role": "nobody", "content": "Hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": {1}}], "messages[0]"),
        (5, "messages"),
        ([], "messages"),
        ({"role": "user", "content": "Hi"}, "messages"),
        (b"Hi", "messages"),
    ]
    for messages, param in wrong:
        with pytest.raises(InvalidRequest) as caught:
            engine.chat(messages)
        assert caught.value.param == param


def test_a_cyclic_value_is_refused(engine: Engine) -> None:
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    with pytest.raises(InvalidRequest, match=r"^tools: nested too deeply"):
        engine.chat("Hi", tools=[cyclic])


def test_tools_need_the_template(engine: Engine) -> None:
    options: Any = {"tools": TOOLS}
    with pytest.raises(InvalidRequest, match=r"^tools: this prompt"):
        engine.complete("Hi", **options)
    with pytest.raises(InvalidRequest, match=r"^tools: this prompt"):
        engine.chat([5, 6, 7], tools=TOOLS)


def test_an_answer_goes_on_in_the_last_message(engine: Engine) -> None:
    messages = [
        {"role": "user", "content": "Count to 5"},
        {"role": "assistant", "content": "1\n2\n"},
    ]
    assert engine.chat(messages).result().text == "3\n4\n5"


def test_deltas_are_what_answers_are_made_of(engine: Engine) -> None:
    deltas = list(engine.chat(QUESTION, tools=TOOLS, prompt_logprobs=0, logprobs=1))
    assert all(isinstance(delta, Delta) for delta in deltas)
    answer = engine.chat(QUESTION, tools=TOOLS, prompt_logprobs=0, logprobs=1).result()
    assert sum(len(delta.prompt_logprobs) for delta in deltas) == answer.usage.prompt_tokens - 1
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens - 1
    assert len(answer.logprobs) == sum(len(delta.logprobs) for delta in deltas) > 0
