"""TGI's routes over a fake engine: what reaches it, how answers come back, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from millstream.core.request import SamplingParams
from millstream.intake.engine_request import choice_seed
from millstream.intake.tgi.parameters import GenerateParameters
from tests.api.conftest import END, SETTINGS, Api, RecordingRunner, serve
from tests.fakes import alone, logprobs_alone, scores_alone

PROMPT = "!%+,"
DRAWN: dict[str, Any] = {"do_sample": True, "seed": 5, "max_new_tokens": 8}


async def generate(api: Api, *, path: str = "/generate", **parameters: Any) -> Any:
    response = await api.ask("POST", path, json={"inputs": PROMPT, "parameters": parameters})
    assert response.status_code == 200, response.text
    return response.json()


async def stream(api: Api, *, path: str = "/generate_stream", **parameters: Any) -> list[Any]:
    body = {"inputs": PROMPT, "parameters": parameters, "stream": True}
    response = await api.ask("POST", path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["x-accel-buffering"] == "no"
    frames = response.text.split("\n\n")
    assert frames.pop() == ""
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


async def refused(api: Api, **body: Any) -> str:
    """The text of the error, which is the same for a stream."""
    errors = []
    for path in ("/generate", "/generate_stream"):
        response = await api.ask("POST", path, json={"inputs": PROMPT} | body)
        assert response.status_code == 422, response.text
        assert response.json()["error_type"] == "validation"
        errors.append(str(response.json()["error"]))
    assert errors[0] == errors[1]
    return errors[0].removeprefix("Input validation error: ")


async def test_parameters_reach_the_engine(api: Api) -> None:
    await generate(
        api,
        temperature=3.5,
        top_k=7,
        top_p=0.5,
        typical_p=0.25,
        repetition_penalty=1.5,
        frequency_penalty=-0.5,
        max_new_tokens=9,
        truncate=3,
        top_n_tokens=2,
        decoder_input_details=True,
        seed=2**64 - 1,
    )
    (request,) = api.requests
    assert request.sampling == SamplingParams(
        temperature=3.5,
        top_k=7,
        top_p=0.5,
        typical_p=0.25,
        repetition_penalty=1.5,
        frequency_penalty=-0.5,
        seed=2**64 - 1,
        logprobs=2,
    )
    assert "".join(chr(token + ord(" ")) for token in request.prompt) == PROMPT[-3:]
    assert (request.max_tokens, request.prompt_logprobs) == (9, 0)


async def test_what_says_nothing_of_drawing_is_greedy(api: Api) -> None:
    await generate(api, max_new_tokens=1)
    await generate(api, max_new_tokens=1, top_p=1.0)
    response = await api.ask("POST", "/generate", json={"inputs": PROMPT})
    assert response.status_code == 200
    found = [(each.sampling.temperature, each.max_tokens) for each in api.requests]
    assert found == [(0.0, 1), (1.0, 1), (1.0, 1020)], "and a body without parameters draws"


async def test_details_are_what_the_engine_said(api: Api) -> None:
    body = await generate(api, details=True, decoder_input_details=True, **DRAWN)
    (request,) = api.requests
    tokens, details = alone(request), body["details"]
    assert [token["id"] for token in details["tokens"]] == tokens
    scores = logprobs_alone(request, tokens)
    assert [token["logprob"] for token in details["tokens"]] == [each.logprob for each in scores]
    assert "".join(token["text"] for token in details["tokens"]) == body["generated_text"]
    prefill = details["prefill"]
    assert [token["text"] for token in prefill] == list(PROMPT)
    expected = [None, *(score.logprob for score in scores_alone(request))]
    assert [token["logprob"] for token in prefill] == expected
    assert (details["seed"], details["generated_tokens"]) == (5, len(tokens))
    assert details["finish_reason"] == ("eos_token" if tokens[-1] == END else "length")


async def test_events_are_the_tokens_of_the_whole(api: Api) -> None:
    whole = await generate(api, details=True, **DRAWN)
    events = await stream(api, details=True, **DRAWN)
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert [event["token"] for event in events] == whole["details"]["tokens"]
    assert [event["generated_text"] for event in events[:-1]] == [None] * (len(events) - 1)
    last = events[-1]
    assert last["generated_text"] == whole["generated_text"]
    kept = ("finish_reason", "generated_tokens", "seed")
    assert last["details"] == {name: whole["details"][name] for name in kept} | {"input_length": 4}
    assert (await stream(api, **DRAWN))[-1]["details"] is None


async def test_tokens_of_a_stop_string_have_no_text(api: Api) -> None:
    free = await generate(api, details=True, **DRAWN)
    stop = free["generated_text"][2:4]
    whole = await generate(api, details=True, stop=[stop], **DRAWN)
    assert whole["generated_text"] == free["generated_text"][:2]
    assert whole["details"]["finish_reason"] == "stop_sequence"
    assert [token["text"] for token in whole["details"]["tokens"]] == [*stop_less(free), "", ""]
    events = await stream(api, details=True, stop_sequences=[stop], **DRAWN)
    assert [event["token"] for event in events] == whole["details"]["tokens"]
    assert events[-1]["generated_text"] == whole["generated_text"]


def stop_less(free: Any) -> list[str]:
    return [token["text"] for token in free["details"]["tokens"][:2]]


async def test_the_best_is_the_most_probable_by_token(api: Api) -> None:
    body = await generate(api, best_of=4, do_sample=True, max_new_tokens=6, details=True)
    best, others = body["details"], body["details"]["best_of_sequences"]
    assert len(others) == 3
    means = [
        sum(token["logprob"] for token in each["tokens"]) / len(each["tokens"])
        for each in (best, *others)
    ]
    assert means[0] == max(means)
    assert len(set(means)) > 1
    first = api.requests[0].sampling.seed
    assert {each["seed"] for each in (best, *others)} == {choice_seed(first, i) for i in range(4)}
    again = await generate(api, do_sample=True, max_new_tokens=6, seed=best["seed"])
    assert again["generated_text"] == body["generated_text"]


async def test_the_root_answers_a_list_and_repeats_the_prompt(api: Api) -> None:
    text = (await generate(api, **DRAWN))["generated_text"]
    assert await generate(api, path="/", **DRAWN) == [{"generated_text": PROMPT + text}]
    bare = await generate(api, path="/", return_full_text=False, **DRAWN)
    assert bare == [{"generated_text": text}]
    assert await generate(api, return_full_text=True, **DRAWN) == {"generated_text": PROMPT + text}
    events = await stream(api, path="/", **DRAWN)
    assert events[-1]["generated_text"] == PROMPT + text
    assert (await api.ask("GET", "/")).text.startswith("Millstream.")
    assert (await api.ask("HEAD", "/")).status_code == 200


async def test_headers_say_what_it_cost(api: Api) -> None:
    body = {"inputs": PROMPT, "parameters": DRAWN}
    whole = await api.ask("POST", "/generate", json=body)
    headers = whole.headers
    assert headers["x-prompt-tokens"] == headers["x-compute-characters"] == "4"
    assert headers["x-generated-tokens"] == "8"
    times = ("total", "validation", "queue", "inference")
    found = [int(headers[f"x-{name}-time"]) for name in times]
    assert found[0] <= sum(found[1:]) + 2
    assert int(headers["x-time-per-token"]) <= found[3]
    assert abs(float(headers["x-compute-time"]) * 1000 - found[0]) <= 1
    streamed = await api.ask("POST", "/generate_stream", json=body)
    assert streamed.headers["x-compute-type"] == headers["x-compute-type"]
    assert streamed.headers["content-type"] == "text/event-stream"
    assert "x-total-time" not in streamed.headers


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be >= 0.01"),
        ({"frequency_penalty": 3}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"top_p": 1.5}, "`top_p` must be > 0.0 and <= 1.0"),
        ({"typical_p": 0}, "`typical_p` must be > 0.0 and <= 1.0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"truncate": 0}, "`truncate` must be strictly positive"),
        ({"top_n_tokens": 21}, "`top_n_tokens` must be >= 0 and <= 20. Given: 21"),
        ({"stop": ["x"] * 17}, "`stop` supports up to 16 stop sequences. Given: 17"),
        ({"seed": -1}, "`seed` must be >= 0 and < 2**64"),
        ({"watermark": True}, "`watermark`: this server does not watermark"),
        ({"adapter_id": "a"}, "`adapter_id`: this server has no adapters"),
        ({"num_return_sequences": 2}, "`num_return_sequences`: one sequence is returned"),
        ({"grammar": {"type": "text"}}, "`grammar`: `type` must be one of json,"),
        ({"grammar": {"type": "regex"}}, "parameters.grammar.value: type regex needs it"),
        ({"grammar": {"type": "regex", "value": "("}}, "parameters.grammar.value: "),
        ({"details": "yes"}, "parameters.details: Input should be a valid boolean"),
        ({"max_new_tokens": 2000}, "`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 4"),
        ({"foo": 1}, "`foo` is not a parameter of this API"),
        ({"stop": [], "stop_sequences": []}, "`stop_sequences`: `stop` says it already"),
    ],
)
async def test_wrong_parameters_are_named(
    api: Api, parameters: dict[str, Any], message: str
) -> None:
    assert (await refused(api, parameters=parameters)).startswith(message)


async def test_wrong_bodies_are_named(api: Api) -> None:
    assert await refused(api, inputs="") == "`inputs` cannot be empty"
    assert (await refused(api, inputs=["!"])).startswith("inputs: ")
    assert (await refused(api, inputs="!" * 1024)).endswith("less than 1024 tokens. Given: 1024")
    assert (await refused(api, more=1)).startswith("more: ")
    assert (await refused(api, options={"use_cache": False, "x": 1})).startswith("options.x ")
    response = await api.ask("POST", "/generate", json={"inputs": PROMPT, "stream": True})
    assert response.status_code == 422


async def test_what_does_not_go_together_is_refused(api: Api) -> None:
    for path, parameters, message in (
        ("/generate", {"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ("/generate", {"best_of": 2} | DRAWN, "`seed` must not be set when `best_of` > 1"),
        ("/generate_stream", {"best_of": 2}, "`best_of` != 1 is not supported when streaming"),
        ("/generate_stream", {"decoder_input_details": True}, "`decoder_input_details` == true"),
        ("/generate", {"best_of": 7, "do_sample": True}, "`best_of` asks for 7 sequences"),
    ):
        response = await api.ask("POST", path, json={"inputs": PROMPT, "parameters": parameters})
        assert response.status_code == 422
        error = response.json()["error"].removeprefix("Input validation error: ")
        assert error.startswith(message)


async def test_truncated_inputs_may_be_of_any_length(api: Api) -> None:
    text = "!" * 70_000 + "%%"
    body = {"inputs": text, "parameters": {"truncate": 5, "decoder_input_details": True} | DRAWN}
    response = await api.ask("POST", "/generate", json=body)
    prefill = response.json()["details"]["prefill"]
    assert "".join(token["text"] for token in prefill) == "!!!%%"
    assert prefill[0]["logprob"] is None


async def test_a_full_server_is_overloaded(api: Api) -> None:
    streams = api.engine.open_many(6)
    for path in ("/", "/generate", "/generate_stream"):
        response = await api.ask("POST", path, json={"inputs": PROMPT})
        assert response.status_code == 429
        assert response.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        assert "retry-after" in response.headers
        assert "content-length" in response.headers
    for one in streams:
        one.close()


async def test_failures_are_told_before_and_within_a_stream(api: Api) -> None:
    api.runner.is_failing = True
    response = await api.ask("POST", "/generate", json={"inputs": PROMPT})
    assert response.status_code == 424
    body = response.json()
    assert body["error"].startswith("Request failed during generation: ")
    assert body["error_type"] == "generation"
    api.runner.is_failing = True
    assert await stream(api) == [body]


async def test_keys_and_methods_are_told_in_the_same_shape(byte_tokenizer: Tokenizer) -> None:
    settings = SETTINGS.model_validate({"api_key": ("k",), "served_model_name": "fake"})
    async with serve(RecordingRunner(), byte_tokenizer, settings) as api:
        response = await api.ask("POST", "/generate", json={"inputs": PROMPT})
    assert response.status_code == 401
    assert response.json()["error_type"] == "authentication"
    assert isinstance(response.json()["error"], str)


def test_every_parameter_of_tgi_is_known() -> None:
    """Source: `GenerateParameters` of TGI 3.3.6, `router/src/lib.rs`."""
    assert set(GenerateParameters.model_fields) >= {
        "best_of",
        "temperature",
        "repetition_penalty",
        "frequency_penalty",
        "top_k",
        "top_p",
        "typical_p",
        "do_sample",
        "max_new_tokens",
        "return_full_text",
        "stop",
        "truncate",
        "watermark",
        "details",
        "decoder_input_details",
        "seed",
        "top_n_tokens",
        "grammar",
        "adapter_id",
    }
