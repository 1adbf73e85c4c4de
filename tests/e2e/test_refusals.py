"""Bad input: refused with a status and a body that names the field, and nothing else changes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from .harness import RunningServer
from .sdk import openai_client
from .wire import assert_dual_error, messages

ROUTE = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
_INTERNALS = re.compile(r'File "|Traceback|site-packages|/home/|/server/|\.py\b|0x[0-9a-f]{6}')

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}

BAD_FIELDS: list[tuple[str, Any, str]] = [
    ("unknown_thing", 1, "unknown_thing"),
    ("n", 4, "n"),
    ("n", 10**12, "n"),
    ("n", 0, "n"),
    ("n", True, "n"),
    ("best_of", 2, "best_of"),
    ("echo", True, "echo"),
    ("logprobs", 5, "logprobs"),
    ("top_logprobs", 3, "top_logprobs"),
    ("prompt_logprobs", 21, "prompt_logprobs"),
    ("tools", [TOOL, TOOL], "tools[1].function.name"),
    ("tool_choice", "required", "tool_choice"),
    ("parallel_tool_calls", 1, "parallel_tool_calls"),
    ("response_format", {"type": "xml"}, "response_format.type"),
    ("response_format", {"type": "json_object", "value": {"not": {}}}, "response_format.value"),
    ("logit_bias", {"5": 101}, "logit_bias"),
    ("logit_bias", {"x": 1}, "logit_bias"),
    ("logit_bias", {"100000": 1}, "logit_bias"),
    ("logit_bias", {str(token): 1 for token in range(1025)}, "logit_bias"),
    ("allowed_token_ids", [100_000], "allowed_token_ids"),
    ("stop_token_ids", [10**9], "stop_token_ids"),
    ("min_tokens", 10**9, "min_tokens"),
    ("presence_penalty", 2.5, "presence_penalty"),
    ("frequency_penalty", -3, "frequency_penalty"),
    ("repetition_penalty", 0, "repetition_penalty"),
    ("min_p", 2, "min_p"),
    ("cache_salt", "x" * 1000, "cache_salt"),
    ("chat_template", "{{ 1 }}", "chat_template"),
    ("chat_template_kwargs", {"tokenize": True}, "chat_template_kwargs"),
    ("chat_template_kwargs", {"chat_template": "{{ 1 }}"}, "chat_template_kwargs"),
    ("documents", [{"text": "x"}], "documents"),
    ("reasoning_effort", "enormous", "reasoning_effort"),
    ("store", True, "store"),
    ("messages", [], "messages"),
    ("messages", None, "messages"),
    ("messages", "Hello", "messages"),
    ("messages", [{"content": "Hello"}], "messages[0].role"),
    ("messages", [{"role": "robot", "content": "Hello"}], "messages[0].role"),
    ("messages", [{"role": "user", "content": 5}], "messages[0].content"),
    ("messages", [{"role": "user", "content": [IMAGE]}], "messages[0].content[0].type"),
    ("messages", [*messages("Hello"), {"role": "user", "text": "x"}], "messages[1].text"),
    ("temperature", 3, "temperature"),
    ("temperature", -1, "temperature"),
    ("temperature", "hot", "temperature"),
    ("temperature", True, "temperature"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", -1, "max_tokens"),
    ("max_tokens", 1.5, "max_tokens"),
    ("max_tokens", "8", "max_tokens"),
    ("max_tokens", True, "max_tokens"),
    ("max_completion_tokens", 0, "max_completion_tokens"),
    ("stop", "", "stop"),
    ("stop", ["fine", ""], "stop[1]"),
    ("stop", [str(i) for i in range(17)], "stop"),
    ("stop", 5, "stop"),
    ("top_p", 0, "top_p"),
    ("top_p", 1.1, "top_p"),
    ("top_k", 1.5, "top_k"),
    ("seed", 2**64, "seed"),
    ("seed", "x", "seed"),
    ("stream", "yes", "stream"),
    ("stream_options", {"include_usage": True}, "stream_options"),
    ("user", 5, "user"),
    ("model", 5, "model"),
]

VALID = json.dumps({"messages": messages("Hello"), "max_tokens": 2})


def with_field(text: str) -> str:
    """A valid body with one more member, as raw text."""
    return f"{VALID[:-1]}, {text}}}"


BAD_BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"hello",
    "truncated": VALID[:-1].encode(),
    "trailing": VALID.encode() + b"{}",
    "array": b"[]",
    "string": b'"x"',
    "null": b"null",
    "NaN": with_field('"temperature": NaN').encode(),
    "Infinity": with_field('"top_p": Infinity').encode(),
    "overflow": with_field('"temperature": 1e999').encode(),
    "5000 digits": with_field(f'"max_tokens": {"9" * 5000}').encode(),
    "deep array": with_field('"stop": ' + "[" * 5000 + "]" * 5000).encode(),
    "deep object": with_field('"x": ' + '{"a":' * 1500 + "1" + "}" * 1500).encode(),
    "lone surrogate": VALID.replace("Hello", "\\ud800").encode(),
    "not UTF-8": VALID.encode().replace(b"Hello", b"\xff\xfe"),
    "UTF-16": VALID.encode("utf-16"),
}


@pytest.fixture(autouse=True)
def unchanged(small_server: RunningServer) -> Iterator[None]:
    """The server answers after each refusal what it answered before."""
    before = small_server.answer("Hello", max_tokens=6)
    yield
    assert small_server.answer("Hello", max_tokens=6) == before


def post(server: RunningServer, content: bytes | str, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}{ROUTE}", content=content, headers=JSON | headers, timeout=30)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("field", "value", "param"), BAD_FIELDS, ids=[f"{f}={v!r:.30}" for f, v, _ in BAD_FIELDS]
)
def test_a_bad_field_is_named(
    field: str, value: Any, param: str, stream: bool, small_server: RunningServer
) -> None:
    body: dict[str, Any] = {"messages": messages("Hello"), "max_tokens": 2}
    if stream and not field.startswith("stream"):
        body["stream"] = True
    response = post(small_server, json.dumps(body | {field: value}))
    error = assert_dual_error(response, status=400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert response.json()["error_type"] == "validation"
    assert not _INTERNALS.search(response.text)


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_not_proper_json_is_refused(name: str, small_server: RunningServer) -> None:
    response = post(small_server, BAD_BODIES[name])
    error = assert_dual_error(response, status=400)
    assert error["type"] == "invalid_request_error"
    assert not _INTERNALS.search(response.text)


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": f"multipart/{FORM}"},
        {"Content-Type": FORM, "Origin": "null"},
        {"Content-Type": FORM, "Sec-Fetch-Site": "none"},
        {"Content-Type": "", "Origin": "https://page.example"},
        {"Content-Type": "", "Sec-Fetch-Mode": "no-cors"},
    ],
    ids=str,
)
def test_what_a_page_may_send_unasked_gets_415(
    headers: dict[str, str], small_server: RunningServer
) -> None:
    response = post(small_server, VALID, **headers)
    assert_dual_error(response, status=415, code="unsupported_media_type")


@pytest.mark.parametrize("media_type", [FORM, f"{FORM.title()}; charset=utf-8"])
def test_what_curl_sends_by_itself_is_read_as_json(
    media_type: str, small_server: RunningServer
) -> None:
    assert post(small_server, VALID, **{"Content-Type": media_type}).status_code == 200
    refused = post(small_server, b"messages=hello", **{"Content-Type": media_type})
    assert_dual_error(refused, status=400, code="invalid_json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Type", "Application/JSON"),
        ("Content-Type", 'application/json ; charset="UTF-8"'),
        ("Content-Type", "application/vnd.api+JSON;ext=x"),
        ("Content-Type", ""),
        ("Content-Encoding", "Identity"),
    ],
)
def test_names_in_headers_have_no_case(name: str, value: str, small_server: RunningServer) -> None:
    assert post(small_server, VALID, **{name: value}).status_code == 200


def test_compressed_bodies_get_415(small_server: RunningServer) -> None:
    response = post(small_server, VALID, **{"Content-Encoding": "gzip"})
    assert_dual_error(response, status=415)


@pytest.mark.parametrize("chunked", [False, True], ids=["by length", "while reading"])
def test_a_body_over_the_limit_gets_413(chunked: bool, small_server: RunningServer) -> None:
    body = json.dumps({"messages": messages("x" * 30_000)}).encode()
    content: Any = (body[i : i + 1000] for i in range(0, len(body), 1000)) if chunked else body
    response = httpx.post(f"{small_server.url}{ROUTE}", content=content, headers=JSON)
    assert_dual_error(response, status=413, code="payload_too_large")


def test_wrong_methods_and_routes(small_server: RunningServer) -> None:
    response = httpx.get(f"{small_server.url}{ROUTE}")
    assert_dual_error(response, status=405, code="method_not_allowed")
    assert "POST" in response.headers["allow"]
    response = httpx.post(f"{small_server.url}/v1/nothing", json={})
    assert_dual_error(response, status=404, code="not_found")


def test_headers_have_a_limit(small_server: RunningServer) -> None:
    for size in (200_000, 4_000_000):
        response = post(small_server, VALID, **{"X-Filler": "x" * size})
        assert_dual_error(response, status=431, code="headers_too_large")


def test_what_is_not_http_is_told_so(small_server: RunningServer) -> None:
    port = int(small_server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n" + b"x" * 100_000)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("words", [300, 5000], ids=["tokens", "characters"])
def test_a_prompt_too_long_gets_both_numbers(words: int, small_server: RunningServer) -> None:
    response = small_server.chat("day " * words if words < 1000 else "x" * 18_000)
    error = assert_dual_error(response, status=400, code="context_length_exceeded")
    assert error["param"] == "messages"
    numbers = [int(number) for number in re.findall(r"\d+", error["message"])]
    assert 256 in numbers
    assert max(numbers) > 256


def test_openai_raises_with_param_and_code(small_server: RunningServer) -> None:
    with openai_client(small_server.url) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="any", messages=messages("Hello"), verbosity="low")
        assert caught.value.param == "verbosity"
        assert caught.value.code == "unsupported_parameter"
        assert caught.value.request_id
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="any", messages=messages("day " * 300), stream=True
            )
        assert caught.value.param == "messages"
        assert caught.value.code == "context_length_exceeded"


def test_values_that_ask_for_nothing_special_are_accepted(small_server: RunningServer) -> None:
    neutral = {
        "n": 1,
        "logprobs": False,
        "top_logprobs": 0,
        "best_of": 1,
        "echo": False,
        "store": False,
        "metadata": {"key": "value"},
        "safety_identifier": "somebody",
        "prompt_cache_key": "something",
        "service_tier": "auto",
        "min_p": 0,
        "typical_p": 1,
        "repetition_penalty": 1,
        "min_tokens": 0,
        "bad_words": [],
        "stop_token_ids": [],
        "ignore_eos": False,
        "skip_special_tokens": True,
        "include_stop_str_in_output": False,
        "add_generation_prompt": True,
        "continue_final_message": False,
        "chat_template_kwargs": {},
        "priority": 0,
        "timeout": 60,
        "return_token_ids": False,
        "tools": [],
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "stop": [],
        "user": "somebody",
        "model": "whatever",
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "top_p": 1,
        "seed": 2**64 - 1,
        "top_k": -1,
        "temperature": 0,
        "stream": False,
    }
    plain = small_server.answer("Hello")
    assert small_server.answer("Hello", **neutral) == plain
    for field, value in neutral.items():
        assert small_server.chat("Hello", **{field: value}).status_code == 200, field
