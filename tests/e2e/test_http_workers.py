"""Several HTTP processes in front of one engine: as one server, whichever of them is asked, and
whatever becomes of the others."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from .harness import COMMAND, STARTUP_SECONDS, RunningServer, open_files, wait_until
from .metrics import scraped
from .wire import DONE, LONG, EventReader, assert_dual_error, messages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told by /proc")

KEY, OTHER_KEY = "sk-workers", "sk-others"
PLACES = 6


def workers_of(server: RunningServer) -> list[psutil.Process]:
    """The HTTP workers, the oldest first."""
    children = psutil.Process(server.process.pid).children()
    found = [child for child in children if "http-worker" in child.cmdline()]
    return sorted(found, key=lambda child: child.create_time())


@contextmanager
def taken_by(worker: psutil.Process, server: RunningServer) -> Iterator[None]:
    """Connections that are opened meanwhile are this worker's: the others are stopped."""
    others = [each for each in workers_of(server) if each.pid != worker.pid]
    for other in others:
        other.suspend()
    try:
        yield
    finally:
        for other in others:
            other.resume()


class Worked:
    """A server with two workers, and a client connected to each of them."""

    def __init__(self, folder: Path, model: Path, *flags: str) -> None:
        keys = folder / "keys.toml"
        keys.write_text(
            f'[[keys]]\nlabel = "limited"\nkey = "{OTHER_KEY}"\nmax_concurrent_requests = 2\n'
        )
        self.server = RunningServer(
            [
                *("--model-id", str(model), "--kv-cache-memory", "64MiB", "--http-workers", "2"),
                *("--max-concurrent-requests", "4", "--max-queue-size", "2", "--open-metrics"),
                *("--api-key", KEY, "--api-keys-file", str(keys), *flags),
            ],
            folder / "server.log",
            variables={"MILLSTREAM_STORE": str(folder / "store.db")},
            is_warm=True,
        )
        self.stack = ExitStack()

    def clients(self, key: str = KEY) -> list[httpx.Client]:
        """One for each worker, with a connection that it has taken."""
        return [self.client(worker, key) for worker in workers_of(self.server)]

    def client(self, worker: psutil.Process, key: str = KEY) -> httpx.Client:
        client = self.stack.enter_context(
            httpx.Client(
                base_url=self.server.url,
                timeout=60,
                headers={"Authorization": f"Bearer {key}"},
                limits=httpx.Limits(max_connections=1),
            )
        )
        with taken_by(worker, self.server):
            assert client.get("/version").status_code == 200
        return client

    def stream(self, client: httpx.Client, **fields: object) -> EventReader:
        """A long answer whose first event has come."""
        reader = self.opened(client, **fields)
        reader.next()
        return reader

    def opened(self, client: httpx.Client, **fields: object) -> EventReader:
        """A long answer that has its place."""
        body = {"messages": messages("Tell me a story"), "stream": True, "temperature": 0}
        body |= {"max_tokens": LONG, **fields}
        response = self.stack.enter_context(
            client.stream("POST", "/v1/chat/completions", json=body)
        )
        assert response.status_code == 200, response.read()
        return EventReader(response)

    def close(self) -> None:
        self.stack.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Iterator[Worked]:
    worked = Worked(tmp_path_factory.mktemp("workers"), endless_model)
    yield worked
    worked.close()
    worked.server.stop()


@pytest.fixture
def worked(kept: Worked) -> Iterator[Worked]:
    with ExitStack() as stack:
        kept.stack = stack
        yield kept
    kept.server.wait_idle()


@pytest.fixture
def ruined(tmp_path: Path, endless_model: Path) -> Iterator[Worked]:
    """One that the test may ruin; it must have ended, or be idle again, when the test is over."""
    worked = Worked(tmp_path, endless_model)
    children = psutil.Process(worked.server.process.pid).children(recursive=True)
    yield worked
    worked.close()
    if worked.server.is_running:
        worked.server.stop()
    worked.server.kill(children)
    worked.server.assert_gone(children)


def answer(client: httpx.Client, **fields: object) -> httpx.Response:
    body = {"messages": messages("Count"), "temperature": 0, "max_tokens": 5} | fields
    return client.post("/v1/chat/completions", json=body)


def test_each_worker_gives_the_same_answers(worked: Worked) -> None:
    texts = [
        answer(client).json()["choices"][0]["message"]["content"] for client in worked.clients()
    ]
    assert texts[0] == texts[1] != ""


def test_places_are_counted_over_all_workers(worked: Worked) -> None:
    probes = worked.clients()
    readers = [worked.stream(worked.client(worker)) for worker in workers_of(worked.server) * 2]
    for probe in probes:

        def all_run(probe: httpx.Client = probe) -> bool:
            health = probe.get("/health").json()
            return bool((health["open_requests"], health["engine"]["num_running"]) == (4, 4))

        wait_until(all_run, "it knows of all")
        refused = answer(probe, n=PLACES - 4 + 1)
        assert_dual_error(refused, status=429, code="overloaded")
        assert int(refused.headers["retry-after"]) > 0
    assert [reader.next() for reader in readers]


def test_limits_of_a_key_hold_over_all_workers(worked: Worked) -> None:
    first, second = worked.clients(OTHER_KEY)
    mine = [worked.stream(first), worked.stream(second)]
    third, fourth = worked.clients(OTHER_KEY)
    for client in (third, fourth):
        assert_dual_error(answer(client), status=429, code="rate_limit_exceeded")
    mine[0].response.close()
    wait_until(lambda: answer(fourth).status_code == 200, "a place of the key is free")


def test_metrics_are_those_of_all_workers(worked: Worked) -> None:
    before = scraped(worked.server)
    clients = worked.clients()
    usages = [answer(client).json()["usage"] for client in clients * 3]
    counts = []
    for client in clients:
        samples = client.get("/metrics").text.splitlines()
        counts.append(
            [
                float(line.rsplit(" ", 1)[1])
                for line in samples
                if line.startswith("millstream_generated_tokens_total ")
            ]
        )
    told = sum(usage["completion_tokens"] for usage in usages)
    expected = before.total("millstream_generated_tokens_total") + told
    assert counts == [[expected], [expected]]


def test_the_official_client_streams_from_both(worked: Worked) -> None:
    for worker in workers_of(worked.server):
        with (
            taken_by(worker, worked.server),
            openai.OpenAI(base_url=f"{worked.server.url}/v1", api_key=KEY) as client,
        ):
            stream = client.chat.completions.create(
                model="any",
                messages=[{"role": "user", "content": "Count"}],
                stream=True,
                max_tokens=5,
                stream_options={"include_usage": True},
            )
            usage = [chunk.usage for chunk in stream if chunk.usage is not None]
            assert [each.completion_tokens for each in usage] == [5]


def test_a_conversation_goes_on_at_the_other_worker(worked: Worked) -> None:
    first, second = worked.clients()
    begun = first.post("/v1/responses", json={"input": "My name is Ada", "max_output_tokens": 5})
    identifier = begun.json()["id"]
    read = second.get(f"/v1/responses/{identifier}")
    assert read.json() == begun.json()
    body = {"input": "And now?", "previous_response_id": identifier, "max_output_tokens": 5}
    assert second.post("/v1/responses", json=body).status_code == 200


def test_children_of_workers_have_nothing_of_what_is_shared(worked: Worked) -> None:
    handed = shared_files(worked.server.process.pid)
    for worker in workers_of(worked.server):
        shared = handed & shared_files(worker.pid)
        assert len(shared) >= 3, "listening sockets and memory"
        for child in worker.children(recursive=True):
            assert not shared & shared_files(child.pid)


def shared_files(pid: int) -> set[str]:
    """Sockets and memory that a process has."""
    return {name for name in open_files(pid).values() if name.startswith(("socket:", "/memfd:"))}


def begun_response(client: httpx.Client) -> str:
    """The path of a long response in the background."""
    body = {"input": "Tell me a story", "background": True, "max_output_tokens": LONG}
    made = client.post("/v1/responses", json=body)
    assert made.status_code == 200, made.text
    return f"/v1/responses/{made.json()['id']}"


def test_an_answer_is_found_whichever_worker_is_asked(worked: Worked) -> None:
    workers = workers_of(worked.server)
    for maker, asker in zip(worked.clients(), worked.clients()[::-1], strict=True):
        path = begun_response(maker)
        seen = []
        for worker in workers:
            # A client of its own: leaving a stream ends the connection.
            with worked.client(worker).stream("GET", f"{path}?stream=true") as response:
                lines = response.iter_lines()
                seen.append([next(lines) for _ in range(100)])
        assert seen[0] == seen[1]
        assert asker.get(path).json()["status"] == "in_progress"
        cancelled = asker.post(f"{path}/cancel").json()
        assert (cancelled["status"], cancelled["id"]) == ("cancelled", path.rpartition("/")[2])
        assert asker.delete(path).json()["deleted"]
        assert maker.get(path).status_code == 404


def test_a_request_is_cancelled_whichever_worker_is_asked(worked: Worked) -> None:
    askers = worked.clients()
    for worker in workers_of(worked.server):
        for asker in askers:
            maker = worked.client(worker)
            maker.headers["X-Request-Id"] = "mine"
            reader = worked.stream(maker)
            assert asker.post("/v1/chat/completions/mine/cancel").status_code == 200
            assert "cancelled" in reader.rest()[-1]
            assert asker.post("/v1/chat/completions/mine/cancel").status_code == 404


def test_a_killed_worker_takes_only_its_own_with_it(ruined: Worked) -> None:
    server = ruined.server
    dying, staying = workers_of(server)
    lost = [ruined.stream(ruined.client(dying)) for _ in range(2)]
    asker, named = ruined.client(staying), begun_response(ruined.client(dying))
    wait_until(lambda: bool(asker.get(named).json()["output"]), "something was said")
    with server.paused_engine():  # what is kept is surely not over
        kept = ruined.opened(ruined.client(staying), max_tokens=400)
        server.wait_open(4)
        before = scraped(server)
        dying.kill()
        for reader in lost:
            with pytest.raises(httpx.HTTPError):
                reader.rest()
        server.wait_open(1)
    while (told := asker.get(named)).status_code == 503:  # while another one is started
        assert_dual_error(told, status=503, code="worker_unavailable")
    assert kept.rest()[-1] == DONE
    wait_until(lambda: len(workers_of(server)) == 2, "it is replaced", seconds=STARTUP_SECONDS)
    (new,) = (each for each in workers_of(server) if each.pid != staying.pid)
    client = ruined.client(new)
    assert answer(client).status_code == 200
    for each in (asker, client):
        assert each.get(named).json()["error"]["code"] == "server_restarted"
    after = scraped(server)
    assert after.total("millstream_requests_started_total") == (
        before.total("millstream_requests_started_total") + 1
    )
    assert "HTTP worker 0 ended with signal 9; it is started again" in server.log()


def test_a_worker_that_is_stuck_is_replaced(tmp_path: Path, endless_model: Path) -> None:
    worked = Worked(tmp_path, endless_model, "--engine-timeout", "20")
    server = worked.server
    stuck, staying = workers_of(server)
    lost = worked.stream(worked.client(stuck))
    kept = worked.stream(worked.client(staying), max_tokens=2_000)
    stuck.suspend()
    with pytest.raises(httpx.HTTPError):
        lost.rest()
    assert kept.rest()[-1] == DONE
    wait_until(lambda: len(workers_of(server)) == 2, "it is replaced", seconds=STARTUP_SECONDS)
    assert not stuck.is_running()
    assert staying in workers_of(server)
    assert "HTTP worker 0 is stuck" in server.log()
    worked.close()
    server.stop()


def test_a_killed_engine_is_started_again_for_all_workers(ruined: Worked) -> None:
    server = ruined.server
    readers = [ruined.stream(client) for client in ruined.clients()]
    server.engine().kill()
    for reader in readers:
        events = reader.rest()
        assert json.loads(events[-1])["error"]["code"] == "engine_dead"
    wait_until(lambda: server.health()[0] == 200, "it is back", seconds=STARTUP_SECONDS)
    for client in ruined.clients():
        assert answer(client).status_code == 200
        assert "millstream_engine_restarts_total 1.0" in client.get("/metrics").text


def test_it_drains_before_it_ends(ruined: Worked) -> None:
    server = ruined.server
    with server.paused_engine():  # the answers are surely not over
        readers = [ruined.opened(client, max_tokens=300) for client in ruined.clients()]
        probes = ruined.clients()
        server.signal(signal.SIGTERM)
        for probe in probes:
            wait_until(lambda probe=probe: probe.get("/health").status_code == 503, "it drains")  # type: ignore[misc]
            assert_dual_error(answer(probe), status=503)
    for reader in readers:
        assert reader.rest()[-1] == DONE
    assert server.wait_exit() == 0
    log = server.log()
    assert log.count("shutting down: waiting up to") == 1
    assert "for 2 open requests" in log


def test_a_second_signal_ends_it_at_once(ruined: Worked) -> None:
    readers = [ruined.stream(client) for client in ruined.clients()]
    ruined.server.signal(signal.SIGTERM)
    wait_until(lambda: "shutting down" in ruined.server.log(), "it drains")
    ruined.server.signal(signal.SIGTERM)
    for reader in readers:
        assert json.loads(reader.rest()[-1])["error"]["code"] == "shutting_down"
    assert ruined.server.wait_exit() == 0
    assert ruined.server.log().count("waiting no longer") == 1


def test_a_second_signal_waits_for_no_worker_that_is_stopped(
    tmp_path: Path, endless_model: Path
) -> None:
    worked = Worked(tmp_path, endless_model, "--engine-timeout", "3000")
    children = psutil.Process(worked.server.process.pid).children(recursive=True)
    workers_of(worked.server)[0].suspend()
    for count in (1, 2):
        worked.server.signal(signal.SIGTERM)
        wait_until(lambda n=count: worked.server.log().count("shutting down") >= n, "heard")  # type: ignore[misc]
    assert worked.server.wait_exit() == 0
    worked.server.assert_gone(children)
    worked.server.kill()


def test_all_processes_end_with_the_first_one(ruined: Worked) -> None:
    children = psutil.Process(ruined.server.process.pid).children(recursive=True)
    assert len(children) >= 3
    ruined.server.process.kill()
    ruined.server.assert_gone(children)


def test_a_server_without_standard_input_serves(tmp_path: Path) -> None:
    server = RunningServer(
        ["--http-workers", "2"],
        tmp_path / "server.log",
        command=["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND],
        variables={"MILLSTREAM_STORE": str(tmp_path / "store.db")},
    )
    assert server.chat().status_code == 200
    server.stop()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--store", "memory"], "--http-workers"),
        (["--chat-template", "/nowhere/template.jinja"], "/nowhere/template.jinja"),
        (["--api-keys-file", "/nowhere/keys.toml"], "/nowhere/keys.toml"),
    ],
    ids=["memory", "template", "keys"],
)
def test_what_cannot_start_ends_and_says_why(
    flags: Sequence[str], said: str, tmp_path: Path
) -> None:
    server = RunningServer(
        ["--http-workers", "2", *flags],
        tmp_path / "server.log",
        variables={"MILLSTREAM_STORE": str(tmp_path / "store.db")},
        is_awaited=False,
        is_warm=True,
    )
    try:
        assert server.wait_exit(seconds=STARTUP_SECONDS) == 1
        (line,) = (line for line in server.log().splitlines() if line.startswith("millstream: "))
        assert said in line
        assert "Traceback" not in server.log()
    finally:
        server.kill()
