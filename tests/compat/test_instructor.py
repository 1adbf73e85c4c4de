"""Instructor: typed answers from tools, JSON and JSON schemas, with retries and streams."""

from __future__ import annotations

from collections.abc import Iterable

import instructor
import pytest
from instructor import Mode, Partial
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict, field_validator

MODEL = "millstream-demo"
DORA = {"name": "Dora", "age": 36}
MODES = pytest.mark.parametrize(
    "mode", [Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON, Mode.JSON_SCHEMA, Mode.MD_JSON]
)
ENFORCED = pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA])


class User(BaseModel):
    name: str
    age: int


class Adult(User):
    @field_validator("age")
    @classmethod
    def _of_age(cls, age: int) -> int:
        if age < 18:
            raise ValueError("must be of age")
        return age


class Size(BaseModel):
    """Small and closed, so any model comes to its end under a grammar."""

    model_config = ConfigDict(extra="forbid")

    is_large: bool


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def typed(url: str, mode: Mode) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=f"{url}/v1", max_retries=0), mode=mode)


@MODES
def test_create(scripted_url: str, mode: Mode) -> None:
    answer = typed(scripted_url, mode).create(
        model=MODEL, messages=user("Extract: Dora is 36."), response_model=User, max_retries=0
    )
    assert answer.model_dump() == DORA


@MODES
async def test_async_create(scripted_url: str, mode: Mode) -> None:
    client = AsyncOpenAI(base_url=f"{scripted_url}/v1", max_retries=0)
    answer = await instructor.from_openai(client, mode=mode).create(
        model=MODEL, messages=user("Extract: Dora is 36."), response_model=User, max_retries=0
    )
    assert answer.model_dump() == DORA


@ENFORCED
def test_any_model_keeps_to_the_type(demo_url: str, mode: Mode) -> None:
    answer = typed(demo_url, mode).create(
        model=MODEL,
        messages=user("How large is an elephant?"),
        response_model=Size,
        max_retries=0,
        max_tokens=100,
    )
    assert isinstance(answer, Size)


@MODES
def test_partial(scripted_url: str, mode: Mode) -> None:
    states = list(
        typed(scripted_url, mode).create_partial(
            model=MODEL, messages=user("Extract: Dora is 36."), response_model=User, max_retries=0
        )
    )
    assert len(states) > 2
    assert any(state.name and state.age is None for state in states)
    assert states[-1].model_dump() == DORA


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA])
def test_iterable(scripted_url: str, mode: Mode) -> None:
    users = typed(scripted_url, mode).create_iterable(
        model=MODEL, messages=user("Extract all: Dora is 36, Emil 7."), response_model=User
    )
    assert list(users) == [User(name="Dora", age=36), User(name="Emil", age=7)]


def test_parallel_tools(scripted_url: str) -> None:
    client = typed(scripted_url, Mode.PARALLEL_TOOLS)
    users = client.create(
        model=MODEL,
        messages=user("Extract in parallel: Dora is 36, Emil 7."),
        response_model=Iterable[User],
    )
    assert list(users) == [User(name="Dora", age=36), User(name="Emil", age=7)]


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON, Mode.JSON_SCHEMA])
def test_an_answer_that_fails_validation_is_asked_for_again(scripted_url: str, mode: Mode) -> None:
    answer = typed(scripted_url, mode).create(
        model=MODEL, messages=user("Extract: Emil is 7."), response_model=Adult, max_retries=2
    )
    assert answer.model_dump() == {"name": "Emil", "age": 18}


def test_completion_beside_the_type(scripted_url: str) -> None:
    answer, completion = typed(scripted_url, Mode.TOOLS).create_with_completion(
        model=MODEL, messages=user("Extract: Dora is 36."), response_model=User
    )
    assert answer.model_dump() == DORA
    assert completion.usage.total_tokens > 20


def test_partial_of_a_type(scripted_url: str) -> None:
    stream = typed(scripted_url, Mode.TOOLS).create(
        model=MODEL,
        messages=user("Extract: Dora is 36."),
        response_model=Partial[User],
        stream=True,
    )
    assert list(stream)[-1].name == "Dora"
