"""`--max-output-tokens`: no answer is longer, whatever is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.settings import Settings
from tests.api.conftest import Api, RecordingRunner, serve

LIMIT = 7


@pytest.fixture
async def api(byte_tokenizer: Tokenizer) -> AsyncIterator[Api]:
    settings = Settings(served_model_name="fake", max_output_tokens=LIMIT)
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        yield api


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"max_tokens": 32_000}, LIMIT),
        ({"max_tokens": None, "max_completion_tokens": 32_000}, LIMIT),
        ({"max_tokens": None}, LIMIT),
        ({"max_tokens": LIMIT}, LIMIT),
        ({"max_tokens": LIMIT - 1}, LIMIT - 1),
    ],
)
async def test_chat_answers_are_no_longer(asked: dict[str, Any], given: int, api: Api) -> None:
    answer = await api.answer(**asked, n=2, ignore_eos=True)
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2 * given
    events = await api.events(**asked, ignore_eos=True, stream_options={"include_usage": True})
    assert events[-1]["usage"]["completion_tokens"] == given
    assert events[-2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("asked", "given"), [({}, LIMIT), ({"max_tokens": 500}, LIMIT), ({"max_tokens": 3}, 3)]
)
async def test_completions_are_no_longer(asked: dict[str, Any], given: int, api: Api) -> None:
    body = {"prompt": ["!%+", "!"], "ignore_eos": True} | asked
    answer = (await api.ask("POST", "/v1/completions", json=body)).json()
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert answer["usage"]["completion_tokens"] == 2 * given


async def test_more_than_may_be_is_not_promised(api: Api) -> None:
    response = await api.post(max_tokens=None, min_tokens=LIMIT + 1)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "min_tokens"
    assert f"only {LIMIT} tokens" in response.json()["error"]["message"]
    answer = await api.answer(max_tokens=None, min_tokens=LIMIT, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == LIMIT


async def test_the_limit_is_told(api: Api) -> None:
    (model,) = (await api.ask("GET", "/v1/models")).json()["data"]
    assert model["max_output_tokens"] == LIMIT
