"""The part of the GPU checks that measures a server over HTTP, on the CPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks.gpu.__main__ import command_of
from benchmarks.gpu.load import Prompts, play
from benchmarks.gpu.model_folder import write_model
from benchmarks.gpu.processes import run_apart
from benchmarks.gpu.report import Report
from benchmarks.gpu.server_packages import MODULES
from benchmarks.gpu.sizes import Size
from benchmarks.peers import ServerProblem

_ROOT = Path(__file__).parent.parent.parent
_ENVIRONMENT = {**os.environ, "PYTHONPATH": "server", "OMP_NUM_THREADS": "1"}
_DRY_RUN = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--only", "server"]
_SPREADS = re.compile(r"TTFT ([\d.]+) / ([\d.]+), ITL ([\d.]+) / ([\d.]+) ms .*; (\d+) answers")


def test_a_real_server_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    done = subprocess.run(
        [*_DRY_RUN, "--json", str(file)],
        cwd=_ROOT,
        env={**_ENVIRONMENT, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = {row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
    for name in ("1 HTTP process, first start", "2 HTTP processes, start"):
        assert float(rows[f"tiny server, {name}"]["value"].removesuffix(" s")) > 0
    assert "caches warm" in rows["tiny second start"]["note"]
    for streams in ("1 stream", "4 streams"):
        for processes in ("1 HTTP process", "2 HTTP processes"):
            row = rows[f"tiny server, {processes}, {streams}"]
            assert _rate(row["value"]) > 0
            found = _SPREADS.match(row["note"])
            assert found is not None, row["note"]
            first, late_first, gap, late_gap, _ = map(float, found.groups())
            assert 0 < first <= late_first
            assert 0 < gap <= late_gap
        alone = rows[f"tiny engine alone, {streams}"]
        assert _rate(alone["value"]) > 0
        assert re.match(
            r"[\d.]+ ms a step; over HTTP \d+% with 1 HTTP process; "
            r"over HTTP \d+% with 2 HTTP processes$",
            alone["note"],
        )
    assert [path.name for path in tmp_path.glob("millstream-model-*")] == []


def _rate(value: str) -> float:
    return float(value.removesuffix(" tokens/s").replace(",", ""))


def test_a_server_that_does_not_start_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(_ROOT)
    monkeypatch.setenv("PYTHONPATH", "server")
    monkeypatch.setenv("MILLSTREAM_ROOT_PATH", "no slash")
    report, file = Report(60), tmp_path / "part.json"
    command = command_of("server tiny", file, seconds=60, is_dry=True)
    run_apart(report, "server tiny", command, file, seconds=300)
    (row,) = report.rows
    assert (row["name"], row["status"]) == ("tiny server over HTTP", "FAILED")
    assert "ServerProblem: it ended with code 2" in row["note"]
    assert "MILLSTREAM_ROOT_PATH: " in capfd.readouterr().out, "what the server said is not shown"


def test_a_run_that_is_ended_leaves_no_server(tmp_path: Path) -> None:
    with subprocess.Popen(
        _DRY_RUN,
        cwd=_ROOT,
        env={**_ENVIRONMENT, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("first start" in line for line in process.stdout)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert len(children) >= 2, "a server and its engine"
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        child.kill()
    assert not alive
    assert [path.name for path in tmp_path.glob("millstream-model-*")] == []


def test_packages_of_the_server_are_those_that_it_declares() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[<>=!; ]", each, maxsplit=1)[0] for each in project["dependencies"]}
    assert names - {"torch", "transformers"} == set(MODULES)


def _event(content: object) -> bytes:
    return b"data: %s\n\n" % json.dumps(content, separators=(",", ":")).encode()


def _whole(max_tokens: int) -> bytes:
    """An answer that begins with two tokens in one event."""
    first = min(2, max_tokens)
    counts = [first, *[1] * (max_tokens - first)]
    events = [_event({"delta": {"content": " word" * count}}) for count in counts]
    usage = {"prompt_tokens": 32, "completion_tokens": max_tokens}
    last = [_event({"usage": usage}), b"data: [DONE]\n\n"]
    return b"".join([_event({"delta": {"role": "assistant", "content": ""}}), *events, *last])


@contextmanager
def _server(
    answer: Callable[[int], bytes], *, status: int = 200, texts: list[str] | None = None
) -> Iterator[int]:
    """Sends answers in pieces that cut their events. Yields its port. texts: gets what is asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if texts is not None:
                texts.append(body["messages"][0]["content"])
            self.send_response(status)
            self.send_header("Connection", "close")
            self.end_headers()
            data = answer(body["max_tokens"])
            with suppress(ConnectionError):  # a client that has seen enough
                for start in range(0, len(data), 7):  # a piece of an event, or of two
                    self.wfile.write(data[start : start + 7])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_PROMPTS = Prompts(length=32, first="a", words=tuple("bcdefghijklmnop"), num_words=20)


def test_no_prompt_is_asked_twice() -> None:
    texts: list[str] = []
    with _server(_whole, texts=texts) as port:
        for streams in (1, 3, 65):
            play(port, _PROMPTS, streams=streams, answer=5, seconds=0.1)
    assert len(texts) > 69
    assert len(set(texts)) == len(texts)


def test_clients_count_tokens_however_events_are_cut() -> None:
    with _server(_whole) as port:
        found = play(port, _PROMPTS, streams=3, answer=5, seconds=0.2)
    assert found.tokens_per_s > 0
    assert found.ttft.p50 is not None
    assert found.itl.p50 is not None


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (_whole, 503, "a request was refused: .* 503"),
        (lambda max_tokens: _whole(max_tokens).replace(b" word", b"", 1), 200, "tokens of an"),
        (lambda max_tokens: _whole(max_tokens).replace(b"32", b"31"), 200, "tokens of an answer"),
        (lambda _: b"event", 200, "a stream was cut"),
    ],
)
def test_a_load_that_is_not_answered_is_a_problem(
    answer: Callable[[int], bytes], status: int, reason: str
) -> None:
    with _server(answer, status=status) as port, pytest.raises(ServerProblem, match=reason):
        play(port, _PROMPTS, streams=2, answer=5, seconds=0.2)


def test_prompts_have_their_length(tmp_path: Path) -> None:
    size = Size(
        device=torch.device("cpu"),
        dtype=torch.float32,
        shapes=("tiny",),
        rows=(1,),
        context=64,
        prompt=64,
        copied_bytes=0,
        matrix=0,
        rounds=1,
    )
    tokenizer = write_model(size, "tiny", tmp_path)
    prompts = Prompts.of(tokenizer, 48)
    text = " ".join([prompts.first, *prompts.words[: prompts.num_words]])
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    assert len(tokenizer.encode(str(rendered), add_special_tokens=False)) == 48
    with pytest.raises(ValueError, match="a prompt has at least"):
        Prompts.of(tokenizer, 8)
