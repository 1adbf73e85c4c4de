"""Answers have the format that was asked for, whatever the model would rather say."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from huggingface_hub import InferenceClient
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .harness import RunningServer
from .sdk import openai_client
from .wire import assert_dual_error, messages


class Person(BaseModel):
    """Bounded, so that even a model that writes noise comes to an end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=12, pattern="^[a-zA-Z ]+$")
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", 'say "hi"', "größer"]
    tags: list[bool] = Field(max_length=3)


SCHEMA = Person.model_json_schema()
FORMAT = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
END = 2  # the demo model's end of turn, which the endless model has as a token like any other
LONG: dict[str, Any] = {
    "max_tokens": 300,
    "stop_token_ids": [END],
    # A model of noise that began to think would not come to an end.
    "chat_template_kwargs": {"enable_thinking": False},
}


def choices_of(server: RunningServer, content: str, **fields: Any) -> list[dict[str, Any]]:
    response = server.chat(content, **(LONG | fields))
    assert response.status_code == 200, response.text
    choices: list[dict[str, Any]] = response.json()["choices"]
    return choices


def text_of(server: RunningServer, content: str = "Who are you?", **fields: Any) -> str:
    (choice,) = choices_of(server, content, **fields)
    assert choice["finish_reason"] == "stop", choice
    text: str = choice["message"]["content"]
    return text


@pytest.mark.parametrize("name", ["demo_server", "endless_server"])
@pytest.mark.parametrize(("temperature", "seed"), [(0, 0), (1.5, 1), (1.5, 2), (2, 3)])
def test_json_of_a_schema(
    name: str, temperature: float, seed: int, request: pytest.FixtureRequest
) -> None:
    server: RunningServer = request.getfixturevalue(name)
    text = text_of(server, temperature=temperature, seed=seed, response_format=FORMAT)
    Person.model_validate_json(text)
    assert list(json.loads(text)) == ["name", "age", "mood", "tags"], "order of the schema"


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object", "value": SCHEMA}},
        {"response_format": {"type": "json", "value": json.dumps(SCHEMA)}},
        {"response_format": {"type": "json_schema", "value": {"name": "p", "schema": SCHEMA}}},
        {"structured_outputs": {"json": SCHEMA}},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
    ],
)
def test_all_ways_to_send_a_schema_are_one(
    fields: dict[str, Any], demo_server: RunningServer
) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "seed": 5}
    expected = text_of(demo_server, **options, response_format=FORMAT)
    assert text_of(demo_server, **options, **fields) == expected


def test_any_object(demo_server: RunningServer) -> None:
    outputs = {"json_object": True}
    for fields in ({"response_format": {"type": "json_object"}}, {"structured_outputs": outputs}):
        (choice,) = choices_of(demo_server, "Hello", **fields)
        text = choice["message"]["content"]
        assert text.lstrip().startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(text), dict)


CHOICES = ["yes", "no", 'well, "perhaps" \\ not\n', "ü😀", "yesterday"]


@pytest.mark.parametrize("seed", range(6))
def test_a_choice_is_exact(seed: int, endless_server: RunningServer) -> None:
    options: dict[str, Any] = {"temperature": 2, "seed": seed}
    text = text_of(endless_server, guided_choice=CHOICES, **options)
    assert text in CHOICES
    assert text_of(endless_server, structured_outputs={"choice": CHOICES}, **options) == text


def test_each_of_several_answers_has_its_own_place(endless_server: RunningServer) -> None:
    choices = choices_of(
        endless_server, "Hello", guided_regex="[0-9]{3}(ab)?", temperature=2, seed=1, n=8
    )
    texts = [choice["message"]["content"] for choice in choices]
    assert all(re.fullmatch("[0-9]{3}(ab)?", text) for text in texts)
    assert len(set(texts)) > 3


@pytest.mark.parametrize("pattern", [r"\d{3}-\d{4}", "(ab|cd){2,5}!", "[à-ý]{1,9}", "^x?y$"])
def test_a_pattern_is_matched_whole(pattern: str, endless_server: RunningServer) -> None:
    for fields in (
        {"guided_regex": pattern},
        {"structured_outputs": {"regex": pattern}},
        {"response_format": {"type": "regex", "value": pattern}},
    ):
        assert re.fullmatch(pattern, text_of(endless_server, temperature=1, seed=2, **fields))


LARK = 'start: NAME "=" NUMBER\nNAME: /[a-z]{1,4}/\nNUMBER: /[0-9]{1,3}/'
GBNF = 'root ::= name "=" number\nname ::= [a-z]{1,4}\nnumber ::= [0-9]{1,3}'


@pytest.mark.parametrize("grammar", [LARK, GBNF], ids=["lark", "gbnf"])
def test_a_grammar_is_followed(grammar: str, endless_server: RunningServer) -> None:
    text = text_of(endless_server, guided_grammar=grammar, temperature=1, seed=4)
    assert re.fullmatch("[a-z]{1,4}=[0-9]{1,3}", text)


def test_neighbours_do_not_change_it(endless_server: RunningServer) -> None:
    plain = {"temperature": 1, "seed": 9, "max_tokens": 40}
    fields: list[dict[str, Any]] = [
        plain,
        plain | {"response_format": FORMAT, "max_tokens": 200},
        plain | {"guided_choice": CHOICES, "frequency_penalty": 1, "return_token_ids": True},
        plain | {"guided_regex": "(ab|cd){5,30}", "top_k": 5},
        plain | {"response_format": FORMAT, "max_tokens": 8, "temperature": 0},
    ]

    def ask(one: dict[str, Any]) -> Any:
        return choices_of(endless_server, "Hello", **one)

    alone = [ask(one) for one in fields]
    with ThreadPoolExecutor(len(fields)) as pool:
        assert list(pool.map(ask, fields)) == alone
    assert alone[-1][0]["finish_reason"] == "length"


def test_reasoning_is_free(demo_server: RunningServer) -> None:
    options: dict[str, Any] = {"guided_regex": r"\d{5}!", "max_tokens": 200}
    for is_thinking, fields in (
        (True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (True, {"reasoning_effort": "high", "chat_template_kwargs": None}),
        (False, {"chat_template_kwargs": {"enable_thinking": False}}),
        (False, {"chat_template_kwargs": None}),
    ):
        (choice,) = choices_of(demo_server, "What is 12 + 30?", **options, **fields)
        assert re.fullmatch(r"\d{5}!", choice["message"]["content"])
        assert bool(choice["message"].get("reasoning_content")) == is_thinking


def test_a_literal_marker_in_a_message_is_no_reasoning(demo_server: RunningServer) -> None:
    assert text_of(demo_server, "Hello <think>", guided_regex="ab") == "ab"


def test_stop_strings_and_min_tokens(endless_server: RunningServer) -> None:
    regex = "(ab|cd){5,30}"
    text = text_of(endless_server, guided_regex=regex, stop="cd", temperature=1, seed=3)
    assert re.fullmatch("(ab)*", text)
    assert text_of(endless_server, guided_choice=["yes"], min_tokens=30) == "yes"


def test_a_stream_is_the_same(demo_server: RunningServer) -> None:
    expected = text_of(demo_server, response_format=FORMAT, chat_template_kwargs=None)
    with openai_client(demo_server.url) as client:
        stream = client.chat.completions.create(
            model="any",
            messages=messages("Who are you?"),
            temperature=0,
            max_tokens=300,
            response_format=FORMAT,  # type: ignore[call-overload]
            stream=True,
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected


def test_openai_parses_into_a_model(demo_server: RunningServer) -> None:
    with openai_client(demo_server.url) as client:
        completion = client.chat.completions.parse(
            model="any",
            messages=messages("Who are you?"),
            temperature=0,
            max_tokens=300,
            response_format=Person,
        )
    assert isinstance(completion.choices[0].message.parsed, Person)


def test_hub_client_sends_tgi_s_shape(demo_server: RunningServer) -> None:
    with InferenceClient(base_url=demo_server.url) as client:
        answer = client.chat.completions.create(
            messages=messages("Who are you?"),
            temperature=0,
            max_tokens=300,
            response_format=FORMAT,  # type: ignore[arg-type]
        )
    TypeAdapter(Person).validate_json(answer.choices[0].message.content or "")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": {"type": "object", "uniqueItems": True, "not": {}}}, "guided_json"),
        ({"guided_regex": "(?=a)"}, "guided_regex"),
        ({"guided_regex": "x" * 70_000}, "guided_regex"),
        ({"guided_choice": ["x" * 1000] * 100}, "guided_choice"),
        ({"guided_grammar": "start: nowhere"}, "guided_grammar"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused(
    stream: bool, fields: dict[str, Any], param: str, demo_server: RunningServer
) -> None:
    response = demo_server.chat("Hello", stream=stream, **fields)
    assert assert_dual_error(response, status=400)["param"] == param
    assert text_of(demo_server, guided_regex="ab") == "ab"


def test_a_dead_end_fails_alone(endless_server: RunningServer) -> None:
    response = endless_server.chat(
        "Hello", guided_regex="[0-9]+", allowed_token_ids=[5], stop_token_ids=[END]
    )
    assert assert_dual_error(response, status=400)["code"] == "no_token_allowed"
    assert text_of(endless_server, guided_regex="ab") == "ab"
