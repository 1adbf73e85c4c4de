"""TGI's routes beside those that generate, over a fake engine, and how clouds ask."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.version import __version__
from tests.api.conftest import SETTINGS, Api, RecordingRunner, serve

DRAWN: dict[str, Any] = {"do_sample": True, "seed": 5, "max_new_tokens": 6}
MESSAGES = [{"role": "user", "content": "!%+,"}]


def placed(text: str, *, at: int = 0) -> list[dict[str, Any]]:
    """The tokens of a text of letters, each of which is one."""
    return [
        {"id": ord(letter) - ord(" "), "text": letter, "start": place, "stop": place + 1}
        for place, letter in enumerate(text, at)
    ]


async def post(api: Api, path: str, **body: Any) -> Any:
    response = await api.ask("POST", path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_info_says_the_limits(api: Api) -> None:
    response = await api.ask("GET", "/info")
    info = response.json()
    assert (info["model_id"], info["version"]) == ("fake", __version__)
    assert (info["max_total_tokens"], info["max_input_tokens"]) == (1024, 1023)
    assert info["max_best_of"] == info["max_concurrent_requests"] == 6


async def test_tokens_have_their_places(api: Api) -> None:
    assert await post(api, "/tokenize", inputs="!%+") == placed("!%+")
    cut = await post(api, "/tokenize", inputs="!%+", parameters={"truncate": 2})
    assert cut == placed("%+", at=1)
    assert (await post(api, "/tokenize", prompt="!%+"))["tokens"] == [1, 5, 11]


async def test_tokenize_refuses_in_the_words_of_its_body(api: Api) -> None:
    theirs = await api.ask("POST", "/tokenize", json={"inputs": 3})
    assert theirs.status_code == 422
    assert theirs.json()["error"].startswith("Input validation error: inputs: ")
    ours = await api.ask("POST", "/tokenize", json={"prompt": 3})
    assert ours.status_code == 400
    assert ours.json()["error"]["param"] == "prompt"


async def test_a_conversation_is_tokenized_as_it_is_computed(api: Api) -> None:
    body = await post(api, "/chat_tokenize", messages=MESSAGES, max_tokens=3)
    assert body == {"tokenize_response": placed("!%+,?"), "templated_text": "!%+,?"}
    response = await api.ask("POST", "/chat_tokenize", json={"messages": []})
    assert response.status_code == 422
    assert "messages" in response.json()["error"]


async def test_an_invocation_is_what_its_prompt_says(api: Api) -> None:
    root = await post(api, "/", inputs="!%", parameters=DRAWN)
    assert await post(api, "/invocations", inputs="!%", parameters=DRAWN) == root
    chat = await post(api, "/invocations", messages=MESSAGES, max_tokens=3, seed=1)
    assert chat["object"] == "chat.completion"
    text = await post(api, "/invocations", prompt="!%", max_tokens=3, seed=1)
    assert text["object"] == "text_completion"


@pytest.mark.parametrize(
    ("body", "has_mark"),
    [({"inputs": "!", "parameters": DRAWN}, False), ({"messages": MESSAGES}, True)],
)
async def test_an_invocation_is_streamed(api: Api, body: dict[str, Any], has_mark: bool) -> None:
    response = await api.ask("POST", "/invocations", json=body | {"stream": True})
    assert response.status_code == 200
    assert response.text.endswith("data: [DONE]\n\n") is has_mark


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"prompt": 3}, {"inputs": 3}])
async def test_wrong_invocations_are_refused_in_one_shape(api: Api, body: dict[str, Any]) -> None:
    response = await api.ask("POST", "/invocations", json=body)
    assert response.status_code == 422
    assert response.json()["error_type"] == "validation"


async def test_each_instance_has_its_prediction(api: Api) -> None:
    one = await post(api, "/generate", inputs="!%", parameters=DRAWN)
    chat = await post(api, "/v1/chat/completions", messages=MESSAGES, max_tokens=3, seed=1)
    body = await post(
        api,
        "/vertex",
        instances=[
            {"inputs": "!%", "parameters": DRAWN},
            {"messages": MESSAGES, "max_tokens": 3, "seed": 1},
            {"inputs": "!%", "parameters": {"best_of": 2, "do_sample": True}},
        ],
    )
    first, second, third = body["predictions"]
    assert first == one["generated_text"]
    assert second == chat["choices"][0]["message"]["content"]
    assert isinstance(third, str)  # drawn without a seed, it may be empty


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([], "instances: "),
        ([{"inputs": "!"}, {"inputs": ""}], "instances[1]: `inputs` cannot be empty"),
        ([{"inputs": "!"}] * 7, "instances ask for 7, more than the 6 requests"),
        ([{"messages": MESSAGES, "stream": True}], "instances[0]: stream: "),
        ([{"messages": MESSAGES, "n": 2}], "instances[0]: n: "),
        ([{"inputs": "!" * 2000}], "instances[0]: `inputs` must have less than 1024 tokens"),
        ([3], "instances[0]: "),
    ],
)
async def test_wrong_instances_are_named(api: Api, instances: list[Any], message: str) -> None:
    response = await api.ask("POST", "/vertex", json={"instances": instances})
    assert response.status_code == 422
    assert response.json()["error"].removeprefix("Input validation error: ").startswith(message)


async def test_one_failed_instance_is_the_failure_of_all(api: Api) -> None:
    api.runner.is_failing = True
    body = {"instances": [{"inputs": "!"}, {"inputs": "%"}]}
    response = await api.ask("POST", "/vertex", json=body)
    assert response.status_code == 424
    assert response.json()["error_type"] == "generation"


async def test_all_routes_need_the_key(byte_tokenizer: Tokenizer) -> None:
    settings = SETTINGS.model_validate({"api_key": ("k",), "served_model_name": "fake"})
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        for path in ("/", "/generate", "/invocations", "/vertex", "/chat_tokenize"):
            response = await api.ask("POST", path, json={})
            assert response.status_code == 401
            assert response.json()["error_type"] == "authentication"
        assert (await api.ask("GET", "/info")).status_code == 401
        assert (await api.ask("GET", "/")).status_code == 200


async def test_the_open_page_opens_nothing_else(byte_tokenizer: Tokenizer) -> None:
    named = {"allowed_hosts": ("llm.example",), "served_model_name": "fake"}
    async with serve(RecordingRunner(), byte_tokenizer, SETTINGS.model_validate(named)) as api:
        for method, status in (("POST", 403), ("GET", 200), ("HEAD", 200), ("PUT", 405)):
            response = await api.ask(method, "/", json={}, headers={"host": "evil.example"})
            assert response.status_code == status
