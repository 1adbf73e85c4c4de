"""What /metrics counts equals what clients were told, to the last token, however they ended."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from .harness import STARTUP_SECONDS, RunningServer, wait_until
from .metrics import Samples, scraped
from .wire import LONG, EventReader, messages, open_stream

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
RUNNING = {"include_usage": True, "continuous_usage_stats": True}
TOKENS = 6
PROMPT = " ".join(["Tell me a story of a river and its stones."] * 4)  # some blocks of cache


@pytest.fixture(scope="module")
def server(
    fleet: list[RunningServer], tmp_path_factory: pytest.TempPathFactory, endless_model: Path
) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("metrics") / "server.log"
    flags = ["--model-id", str(endless_model), "--kv-cache-memory", "64MiB"]
    flags += ["--max-concurrent-requests", "2", "--max-queue-size", "1"]
    flags += ["--speculate", "0"]  # a step brings one token of an answer
    server = RunningServer(flags, log, is_warm=True)
    fleet.append(server)
    yield server
    fleet.remove(server)
    server.stop()


class Traffic:
    """A client that keeps books. ended: requests by (kind, detail), as /metrics names them."""

    def __init__(self, server: RunningServer, http: httpx.Client) -> None:
        self.server = server
        self._http = http
        self.ended: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self.prompt = self.cached = self.generated = 0

    def ask(self, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
        response = self._http.post(path, json=body, **options)
        self.answered(path, response)
        return response

    def answered(self, path: str, response: httpx.Response, *, method: str = "POST") -> None:
        self.answers[method, path, str(response.status_code)] += 1

    def finished(self, usage: dict[str, Any], *reasons: str) -> None:
        """Books what a client was told at the end of its answers."""
        self.told(usage)
        self.ended.update(("finished", reason) for reason in reasons)

    def told(self, usage: dict[str, Any]) -> None:
        self.prompt += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        self.generated += usage.get("completion_tokens", usage.get("output_tokens", 0))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        self.cached += details.get("cached_tokens", 0)

    def stream(
        self, reader: EventReader, *read: str
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The last usage of a stream that tells it with each event, and the error at its end.

        read: the events that were read before.
        """
        usage, error = {}, None
        for event in (*read, *reader.rest()):
            if event != "[DONE]":
                said = json.loads(event)
                usage, error = said.get("usage") or usage, said.get("error")
        return usage, error


@pytest.fixture(scope="module")
def told(server: RunningServer) -> tuple[Traffic, Samples]:
    """Traffic of every kind, which is over, and what /metrics says of it."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        traffic = Traffic(server, http)
        _finish(traffic)
        _stop(traffic)
        _cancel(traffic)
        _refuse(traffic)
        _fail(traffic)
        server.wait_idle()
        return traffic, scraped(server)


def chat(**fields: Any) -> dict[str, Any]:
    asked = {"messages": messages(PROMPT), "temperature": 0, "max_tokens": TOKENS}
    return asked | fields


def _finish(traffic: Traffic) -> None:
    """On every API, until the answer is as long as it may be."""
    for body in (chat(), chat(), chat(n=2)):
        said = traffic.ask(CHAT, body).json()
        traffic.finished(said["usage"], *(each["finish_reason"] for each in said["choices"]))
    body = {"prompt": ["One", "Two"], "max_tokens": TOKENS}
    said = traffic.ask(COMPLETIONS, body).json()
    traffic.finished(said["usage"], *(each["finish_reason"] for each in said["choices"]))
    said = traffic.ask(RESPONSES, {"input": "Hello", "max_output_tokens": TOKENS}).json()
    traffic.finished(said["usage"], "length")
    said = traffic.ask("/v1/messages", chat(model="any")).json()
    read = said["usage"]["cache_read_input_tokens"]
    traffic.finished(
        said["usage"] | {"input_tokens": said["usage"]["input_tokens"] + read}, "length"
    )
    traffic.cached += read
    details = {"max_new_tokens": TOKENS, "details": True, "decoder_input_details": True}
    said = traffic.ask("/generate", {"inputs": "Once upon", "parameters": details}).json()
    usage = {"prompt_tokens": len(said["details"]["prefill"])}
    usage["completion_tokens"] = said["details"]["generated_tokens"]
    traffic.finished(usage, said["details"]["finish_reason"])
    _in_background(traffic)
    traffic.finished(*asyncio.run(_over_websocket(traffic)))


def _in_background(traffic: Traffic) -> None:
    body = {"input": "Hello", "max_output_tokens": TOKENS, "background": True}
    place = f"{RESPONSES}/{traffic.ask(RESPONSES, body).json()['id']}"
    found: list[dict[str, Any]] = []

    def is_over() -> bool:
        response = httpx.get(traffic.server.url + place)
        traffic.answered(f"{RESPONSES}/{{id}}", response, method="GET")
        found.append(response.json())
        return bool(found[-1]["status"] == "incomplete")

    wait_until(is_over, "the response is over")
    traffic.finished(found[-1]["usage"], "length")


async def _over_websocket(traffic: Traffic) -> tuple[dict[str, Any], str]:
    """A message over /ws, and one that is refused there."""
    async with connect(traffic.server.url.replace("http", "ws", 1) + "/ws") as socket:
        for fields in ({"max_tokens": TOKENS}, {"max_tokens": -1}):
            await socket.send(json.dumps({"id": 1, "text": "Hello"} | fields))
            frame: dict[str, Any] = {}
            while not ("finish_reason" in frame or "error" in frame):
                frame = json.loads(await socket.recv())
            if "error" in frame:
                traffic.ended["refused", frame["error"]["code"]] += 1
                traffic.answers["WS", "/ws", "400"] += 1
            else:
                usage, reason = frame["usage"], frame["finish_reason"]
                traffic.answers["WS", "/ws", "200"] += 1
    traffic.answers["GET", "/ws", "101"] += 1
    return usage, reason


def _stop(traffic: Traffic) -> None:
    """At a stop string, which the engine knows nothing of."""
    said = traffic.ask(CHAT, chat(max_tokens=40)).json()
    traffic.finished(said["usage"], "length")
    text = said["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 :][:4]
    said = traffic.ask(CHAT, chat(max_tokens=LONG, stop=stop)).json()
    assert said["usage"]["completion_tokens"] < 40
    traffic.finished(said["usage"], said["choices"][0]["finish_reason"])
    body = chat(max_tokens=LONG, stop=stop, stream=True, stream_options=RUNNING)
    with traffic._http.stream("POST", CHAT, json=body) as response:
        traffic.answered(CHAT, response)
        usage, error = traffic.stream(EventReader(response))
    assert error is None
    traffic.finished(usage, "stop")


def _cancel(traffic: Traffic) -> None:
    """By its id, and by leaving."""
    body = chat(max_tokens=LONG, stream=True, stream_options=RUNNING)
    with traffic._http.stream("POST", CHAT, json=body) as response:
        traffic.answered(CHAT, response)
        reader = EventReader(response)
        first = reader.next()
        identifier = json.loads(first)["id"]
        done = httpx.post(f"{traffic.server.url}{CHAT}/{identifier}/cancel")
        traffic.answered(f"{CHAT}/{{id}}/cancel", done)
        usage, error = traffic.stream(reader, first)
    assert error is not None
    traffic.told(usage)
    traffic.ended["cancelled", "asked"] += 1
    with traffic._http.stream(
        "POST", CHAT, json=body, headers={"x-request-id": "leaving"}
    ) as response:
        traffic.answered(CHAT, response)
        reader = EventReader(response)
        reader.next()
        usage = json.loads(reader.next())["usage"]
    # How much was sent to whoever has left is known to the server only.
    wait_until(lambda: " id=leaving " in traffic.server.log(), "the line in the log")
    line = traffic.server.log().split(" id=leaving ")[1].split("\n")[0]
    traffic.told(usage | {"completion_tokens": int(line.split(" answer=")[1].split(" ")[0])})
    traffic.ended["cancelled", "reader_left"] += 1


def _refuse(traffic: Traffic) -> None:
    for path, body, code in (
        (CHAT, chat(nonsense=1), "unknown_parameter"),
        (COMPLETIONS, {"prompt": "a " * 40_000}, "context_length_exceeded"),
        ("/v1/messages", {}, "invalid_value"),
    ):
        assert 400 <= traffic.ask(path, body).status_code < 500
        traffic.ended["refused", code] += 1
    with (
        traffic.server.paused_engine(),
        httpx.Client(base_url=traffic.server.url, timeout=60) as others,
    ):
        streams = [
            others.build_request("POST", CHAT, json=chat(stream=True, stream_options=RUNNING))
            for _ in range(3)
        ]
        waiting = [others.send(each, stream=True) for each in streams]
        assert traffic.ask(CHAT, chat()).status_code == 429
        traffic.ended["refused", "overloaded"] += 1
        assert traffic.ask("/generate", {"inputs": "x"}).status_code == 429
        traffic.ended["refused", "overloaded"] += 1
        # Released in here, so that their books are closed before the engine goes on.
        traffic.server.engine().resume()
        for response in waiting:
            traffic.answered(CHAT, response)
            usage, error = traffic.stream(EventReader(response))
            assert error is None
            traffic.finished(usage, "length")
            response.close()
    unknown = traffic._http.get("/v1/nowhere/at/all")
    traffic.answered("none", unknown, method="GET")
    traffic.ended["refused", "not_found"] += 1


def _fail(traffic: Traffic) -> None:
    """While the engine has it: out of time, and with the engine."""
    with traffic.server.paused_engine():
        assert traffic.ask(CHAT, chat(timeout=1.5)).status_code == 504
    traffic.ended["failed", "timeout"] += 1
    body = chat(max_tokens=LONG, stream=True, stream_options=RUNNING)
    with traffic._http.stream("POST", CHAT, json=body) as response:
        traffic.answered(CHAT, response)
        reader = EventReader(response)
        read = reader.next(), reader.next()
        before = scraped(traffic.server)
        traffic.server.engine().kill()
        usage, error = traffic.stream(reader, *read)
    assert error is not None
    assert error["code"] == "engine_dead"
    traffic.told(usage)
    traffic.ended["failed", "engine_dead"] += 1
    wait_until(lambda: traffic.server.health()[0] == 200, "it is back", seconds=STARTUP_SECONDS)
    after = scraped(traffic.server)
    assert after.total("millstream_engine_restarts_total") == 1
    assert not [name for name in before.falling(after) if name not in GAUGES]


GAUGES = {
    *("millstream_requests_open", "millstream_requests_running", "millstream_kv_cache_used_blocks"),
    *("millstream_kv_cache_cached_blocks", "millstream_kv_cache_usage_ratio"),
    *("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    *("tgi_batch_current_size", "process_resident_memory_bytes", "process_virtual_memory_bytes"),
    *("process_open_fds", "millstream_asyncio_tasks"),
}


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("finished", "finish_reason"),
        ("cancelled", "cause"),
        ("failed", "code"),
        ("refused", "code"),
    ],
)
def test_endings_are_those_of_the_clients(
    told: tuple[Traffic, Samples], kind: str, label: str
) -> None:
    traffic, samples = told
    expected = {detail: n for (each, detail), n in traffic.ended.items() if each == kind}
    assert samples.by(f"millstream_requests_{kind}_total", label) == expected


def test_tokens_are_those_of_the_clients(told: tuple[Traffic, Samples]) -> None:
    traffic, samples = told
    assert samples.total("millstream_prompt_tokens_total") == traffic.prompt > 0
    assert samples.total("millstream_prompt_tokens_cached_total") == traffic.cached > 0
    assert samples.total("millstream_generated_tokens_total") == traffic.generated > 0


def test_whatever_was_started_has_ended(told: tuple[Traffic, Samples]) -> None:
    traffic, samples = told
    ended = sum(n for (kind, _), n in traffic.ended.items() if kind != "refused")
    assert samples.total("millstream_requests_started_total") == ended
    assert samples.total("millstream_requests_open") == 0
    assert samples.total("millstream_request_preparation_seconds_count") == ended


def test_histograms_have_each_request_once(told: tuple[Traffic, Samples]) -> None:
    traffic, samples = told
    finished = sum(n for (kind, _), n in traffic.ended.items() if kind == "finished")
    # The one that ran out of time never ran.
    ran = sum(n for (kind, _), n in traffic.ended.items() if kind in ("cancelled", "failed")) - 1
    for name in ("duration_seconds", "decode_seconds", "prompt_tokens", "generated_tokens"):
        assert samples.total(f"millstream_request_{name}_count") == finished, name
    assert samples.total("millstream_time_to_first_token_seconds_count") == finished + ran
    # It is handed to a stopped engine, and taken back before it is looked at.
    assert samples.total("millstream_request_queue_seconds_count") == finished + ran
    between = samples.total("millstream_inter_token_latency_seconds_count")
    assert between >= traffic.generated - finished - ran


def test_responses_are_counted_by_route(told: tuple[Traffic, Samples]) -> None:
    traffic, samples = told
    name = "millstream_http_requests_total"
    found = samples.by(name, "method", "route", "code")
    watched = {("GET", path, code) for path in ("/health", "/metrics") for code in ("200", "503")}
    assert {key: n for key, n in found.items() if key not in watched} == traffic.answers


def test_the_names_of_others_have_the_same_values(told: tuple[Traffic, Samples]) -> None:
    traffic, samples = told
    same = {
        "vllm:prompt_tokens_total": "millstream_prompt_tokens_total",
        "vllm:generation_tokens_total": "millstream_generated_tokens_total",
        "vllm:e2e_request_latency_seconds_sum": "millstream_request_duration_seconds_sum",
        "vllm:inter_token_latency_seconds_count": "millstream_inter_token_latency_seconds_count",
        "tgi_request_generated_tokens_sum": "millstream_request_generated_tokens_sum",
        "tgi_request_duration_count": "vllm:e2e_request_latency_seconds_count",
    }
    for theirs, ours in same.items():
        assert samples.total(theirs) == samples.total(ours) > 0, theirs
    by_kind: Counter[str] = Counter()
    for (kind, _), n in traffic.ended.items():
        by_kind[kind] += n
    reasons = samples.by("vllm:request_success_total", "finished_reason")
    assert (reasons["abort"], reasons["error"]) == (by_kind["cancelled"], by_kind["failed"])
    assert samples.total("tgi_request_success") == by_kind["finished"]
    failures = samples.by("tgi_request_failure", "err")
    assert failures["overloaded"] == traffic.ended["refused", "overloaded"]
    # A path that is no route asks for no answer.
    asked = by_kind.total() - traffic.ended["refused", "not_found"]
    assert samples.total("tgi_request_count") == asked


def test_load_while_it_lasts(server: RunningServer) -> None:
    with server.paused_engine(), httpx.Client(base_url=server.url, timeout=60) as http:
        request = http.build_request("POST", CHAT, json=chat(stream=True))
        waiting = http.send(request, stream=True)
        assert scraped(server).total("millstream_requests_open") == 1
        server.engine().resume()
        waiting.close()
    with open_stream(server) as reader:
        reader.next()
        server.wait_engine(num_running=1)
        samples = scraped(server)
    assert samples.total("vllm:num_requests_running") == 1
    assert samples.total("vllm:num_requests_waiting") == 0
    assert 0 < samples.total("vllm:kv_cache_usage_perc") < 1
    server.wait_idle()
    assert scraped(server).total("vllm:kv_cache_usage_perc") == 0
