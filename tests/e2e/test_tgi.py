"""Text Generation Inference's surface on real servers, as huggingface_hub reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, OverloadedError, ValidationError

from .harness import RunningServer
from .kept import KeptServers

PROMPT = "<|im_start|>user\nCount to 5<|im_end|>\n<|im_start|>assistant\n"
TEXT = "1\n2\n3\n4\n5"
USER = [{"role": "user", "content": "Hi"}]


def post(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    response = httpx.post(server.url + path, json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def generate(server: RunningServer, **parameters: Any) -> Any:
    return post(server, "/generate", {"inputs": PROMPT, "parameters": parameters})


def test_text_generation_whole_and_streamed(demo_server: RunningServer) -> None:
    client = InferenceClient(model=demo_server.url)
    assert client.text_generation(PROMPT, return_full_text=False) == TEXT
    whole = client.text_generation(PROMPT, details=True, return_full_text=False, seed=3)
    assert whole.generated_text == TEXT
    assert whole.details.finish_reason == "eos_token"
    assert "".join(token.text for token in whole.details.tokens) == TEXT
    events = list(client.text_generation(PROMPT, details=True, stream=True))
    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]
    assert events[-1].details.generated_tokens == len(events)
    assert events[-1].generated_text == PROMPT + TEXT, "what the root does unless told otherwise"
    assert "".join(client.text_generation(PROMPT, stream=True)) == TEXT
    assert client.text_generation(PROMPT, stop=["3"], return_full_text=False) == "1\n2\n"


async def test_text_generation_by_the_async_client(demo_server: RunningServer) -> None:
    async with AsyncInferenceClient(model=demo_server.url) as client:
        whole = await client.text_generation(PROMPT, return_full_text=False)
        stream = await client.text_generation(PROMPT, stream=True)
        texts = [text async for text in stream]
    assert whole == "".join(texts) == TEXT


def test_wrong_parameters_are_validation_errors(demo_server: RunningServer) -> None:
    client = InferenceClient(model=demo_server.url)
    for stream in (False, True):
        with pytest.raises(ValidationError, match="`top_p` must be > 0"):
            client.text_generation(PROMPT, top_p=2, stream=stream)
    with pytest.raises(ValidationError, match="must be <= "):
        client.text_generation(PROMPT, max_new_tokens=10**6)


def test_prefill_and_alternatives_are_those_of_completions(demo_server: RunningServer) -> None:
    details = generate(demo_server, decoder_input_details=True, top_n_tokens=3, max_new_tokens=6)[
        "details"
    ]
    body = {"prompt": PROMPT, "echo": True, "logprobs": 3, "max_tokens": 6, "temperature": 0}
    scores = post(demo_server, "/v1/completions", body)["choices"][0]["logprobs"]
    tokens = [*details["prefill"], *details["tokens"]]
    assert [token["logprob"] for token in tokens] == pytest.approx(scores["token_logprobs"])
    assert "".join(token["text"] for token in details["prefill"]) == PROMPT
    theirs = scores["top_logprobs"][len(details["prefill"]) :]
    for top, expected in zip(details["top_tokens"], theirs, strict=True):
        assert len(top) == 3
        numbers = sorted(expected.values(), reverse=True)
        assert [token["logprob"] for token in top] == pytest.approx(numbers[:3])


def test_the_best_of_several_is_the_most_probable(demo_server: RunningServer) -> None:
    body = generate(
        demo_server, best_of=3, temperature=4.0, details=True, max_new_tokens=5, top_k=50
    )
    ranked = [body["details"], *body["details"]["best_of_sequences"]]
    means = [sum(t["logprob"] for t in each["tokens"]) / len(each["tokens"]) for each in ranked]
    assert means[0] == max(means)
    assert len(set(means)) == 3


@pytest.mark.parametrize(
    "grammar",
    [
        {"type": "regex", "value": "[0-9]{4}"},
        {"type": "json", "value": {"type": "integer", "minimum": 1000, "maximum": 9999}},
        {"type": "json_schema", "value": {"schema": {"enum": [1234]}}},
    ],
)
def test_grammars_hold(demo_server: RunningServer, grammar: dict[str, Any]) -> None:
    text = generate(demo_server, grammar=grammar, max_new_tokens=20)["generated_text"]
    assert 1000 <= json.loads(text) <= 9999 or grammar["type"] == "regex"
    assert len(text) == 4


def test_truncated_inputs_are_computed_from_their_end(demo_server: RunningServer) -> None:
    tokens = post(demo_server, "/tokenize", {"inputs": PROMPT})
    assert "".join(token["text"] for token in tokens) == PROMPT
    long = {"inputs": "word " * 50_000 + PROMPT, "parameters": {"truncate": len(tokens)}}
    assert post(demo_server, "/generate", long)["generated_text"] == TEXT


@pytest.fixture(scope="module")
def full_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose one place is taken, and which shows that in a chat's stream."""
    flags = ["--max-concurrent-requests", "1", "--max-queue-size", "0", "--store", "memory"]
    with ExitStack() as stack:
        folder: Path = tmp_path_factory.mktemp("full")
        servers = stack.enter_context(KeptServers(folder / "log"))
        url = servers.start([*flags, "--tgi-error-events"])
        body = {"messages": USER, "stream": True, "ignore_eos": True, "max_tokens": 60_000}
        held = httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60)
        response = stack.enter_context(held)
        parts = response.iter_bytes()  # whose end would be the stream's
        next(parts)
        yield url


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_server_is_overloaded_for_both_clients(full_url: str, stream: bool) -> None:
    with pytest.raises(OverloadedError, match=r"^Model is overloaded$"):
        InferenceClient(model=full_url).text_generation("Hi", stream=stream)
    async with AsyncInferenceClient(model=full_url) as client:
        with pytest.raises(OverloadedError, match=r"^Model is overloaded$"):
            await client.text_generation("Hi", stream=stream)


async def test_a_chat_is_overloaded_where_its_stream_says_so(full_url: str) -> None:
    client = InferenceClient(base_url=full_url)
    with pytest.raises(OverloadedError):
        list(client.chat_completion(USER, stream=True))
    with pytest.raises(HfHubHTTPError, match="429"):
        client.chat_completion(USER)
    async with AsyncInferenceClient(base_url=full_url) as asynchronous:
        with pytest.raises(OverloadedError):
            async for _ in await asynchronous.chat_completion(USER, stream=True):
                pass
