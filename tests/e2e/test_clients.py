"""The programs of clients/, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from .harness import RunningServer, wait_until
from .wire import open_stream

CLIENTS = Path(__file__).parents[2] / "clients"
COUNTED = [str(number) for number in range(1, 11)]


def run(
    *command: str | Path, url: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    environment.pop("MILLSTREAM_URL", None)
    if url is not None:
        environment["MILLSTREAM_URL"] = url
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    return done


def run_python(name: str, server: RunningServer) -> str:
    """The program's output, with the address given as argument."""
    return run(sys.executable, CLIENTS / "python" / name, server.url).stdout


def chat_sh(*arguments: str, url: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run(CLIENTS / "curl" / "chat.sh", *arguments, url=url, check=check)


# What the demo model says in these tests is what it was trained to say.


def test_hub_stream(demo_server: RunningServer) -> None:
    output = run_python("hub_stream.py", demo_server)
    assert re.findall(r"\d+", output) == COUNTED


def test_hub_async_stream(demo_server: RunningServer) -> None:
    output = run_python("hub_async_stream.py", demo_server)
    assert "this is a test" in output.lower()


def test_openai_stream(demo_server: RunningServer) -> None:
    *answer, cost = run_python("openai_stream.py", demo_server).splitlines()
    assert re.findall(r"\d+", "\n".join(answer)) == COUNTED
    assert re.fullmatch(r"\(\d+ \+ \d+ tokens\)", cost)


def test_anthropic_stream(demo_server: RunningServer) -> None:
    *answer, cost = run_python("anthropic_stream.py", demo_server).splitlines()
    assert re.findall(r"\d+", "\n".join(answer)) == COUNTED
    assert re.fullmatch(r"\(\d+ \+ \d+ cached \+ \d+ tokens\)", cost)


def test_openai_responses(demo_server: RunningServer) -> None:
    called, *answer, cost = run_python("openai_responses.py", demo_server).splitlines()
    assert re.fullmatch("called: get_weather for (Paris|Rome)", called)
    assert "".join(answer)
    assert re.fullmatch(r"\(\d+ tokens\)", cost)


def test_openai_conversation(demo_server: RunningServer) -> None:
    *turns, kept = run_python("openai_conversation.py", demo_server).splitlines()
    assert turns[-1].startswith("What is my name? -> ")
    assert "Anna" in turns[-1]
    assert kept == "4 items are kept"


def test_openai_background(demo_server: RunningServer) -> None:
    """Nothing is lost and nothing comes twice where the answer is taken up again."""
    first, rest = run_python("openai_background.py", demo_server).split("-- taken up again --")
    *text, state = rest.splitlines()
    # Tokens may share an event, so what was read before may be more than three numbers.
    assert re.findall(r"\d+", first)[:3] == COUNTED[:3]
    assert re.findall(r"\d+", first.removesuffix("\n") + "\n".join(text)) == COUNTED
    assert state == "(completed)"


def test_responses_sh(demo_server: RunningServer) -> None:
    command = (CLIENTS / "curl" / "responses.sh", "My name is Anna.", "What is my name?")
    *_, last = run(*command, url=demo_server.url).stdout.splitlines()
    assert "Anna" in last


def test_responses_sh_shows_what_is_refused(demo_server: RunningServer) -> None:
    long = "word " * 5000
    done = run(CLIENTS / "curl" / "responses.sh", long, "x", url=demo_server.url, check=False)
    assert done.returncode != 0
    assert "context_length_exceeded" in done.stderr


def test_resume_sh(demo_server: RunningServer) -> None:
    done = run(CLIENTS / "curl" / "resume.sh", "Count to 10", "8", url=demo_server.url)
    numbers = [int(number) for number in re.findall(r"^id: (\d+)$", done.stdout, re.MULTILINE)]
    assert numbers == list(range(len(numbers)))
    assert ": left after event 7\n" in done.stdout
    assert numbers[-1] > 7
    assert "event: response.completed\n" in done.stdout.rpartition("id: ")[2]


def test_openai_async_stream(demo_server: RunningServer) -> None:
    output = run_python("openai_async_stream.py", demo_server)
    prompts = ["Count to 10", "Say this is a test", "What is 2 + 3?"]
    found = re.fullmatch("".join(f"{re.escape(p)} -> (.*)\n" for p in prompts), output, re.DOTALL)
    assert found is not None, output
    counting, saying, adding = found.groups()
    assert re.findall(r"\d+", counting) == COUNTED
    assert "this is a test" in saying.lower()
    assert re.findall(r"\d+", adding)[-1] == "5"


def test_openai_websocket(demo_server: RunningServer) -> None:
    *counting, saying = run_python("openai_websocket.py", demo_server).splitlines()
    assert re.findall(r"\d+", "\n".join(counting)) == COUNTED
    assert "this is a test" in saying.lower()


def test_openai_cancel(demo_server: RunningServer) -> None:
    output = run_python("openai_cancel.py", demo_server)
    answer = output.removesuffix(" ... stopped\n")
    assert answer != output
    numbers = re.findall(r"\d+", answer)
    assert numbers[:3] == ["1", "2", "3"]
    assert "50" not in numbers


def test_curl_script_shows_the_events(demo_server: RunningServer) -> None:
    output = chat_sh("Count to 10", url=demo_server.url).stdout
    assert output.startswith('data: {"')
    assert output.endswith("data: [DONE]\n\n")


def test_curl_script_shows_the_text(demo_server: RunningServer) -> None:
    output = chat_sh("--text", "Count to 10", url=demo_server.url).stdout
    assert re.findall(r"\d+", output) == COUNTED
    assert output.endswith("\n")


# What follows holds for any model.


@pytest.mark.parametrize(
    "prompt",
    [
        'say "hi"',
        r"a \ and a \n that is no line feed",
        "two\nlines\n\nand a\ttab\r.",
        "grüße, 你好, 🙂 & 'quotes' $HOME `date` %s",
        "control \x01\x1f gone",
    ],
)
def test_curl_script_escapes_the_prompt(prompt: str, tmp_path: Path) -> None:
    # A curl that prints the body it was to send.
    fake = tmp_path / "curl"
    fake.write_text('#!/bin/sh\nfor last; do :; done\nprintf "%s" "$last"\n', encoding="utf-8")
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = str(CLIENTS / "curl" / "chat.sh")
    sent = subprocess.run([script, prompt], env=environment, capture_output=True, check=True)
    body = json.loads(sent.stdout)
    expected = prompt.replace("\x01", "").replace("\x1f", "")
    assert body == {"messages": [{"role": "user", "content": expected}], "stream": True}


@pytest.mark.parametrize("name", ["hub_stream.py", "openai_cancel.py"])
def test_the_address_may_come_from_the_environment(name: str, demo_server: RunningServer) -> None:
    assert run(sys.executable, CLIENTS / "python" / name, url=demo_server.url).stdout


def test_a_busy_server_is_reported(small_server: RunningServer) -> None:
    with small_server.paused_engine():
        with open_stream(small_server), open_stream(small_server), open_stream(small_server):
            hub = CLIENTS / "python" / "hub_stream.py"
            done = run(sys.executable, hub, small_server.url, check=False)
            assert done.returncode == 1
            assert re.fullmatch(r"The server is busy; try again in \d+ s\.\n", done.stderr)
            done = chat_sh("Hello", url=small_server.url, check=False)
            assert done.returncode != 0
            assert json.loads(done.stdout)["error_type"] == "overloaded"
            done = chat_sh("--text", "Hello", url=small_server.url, check=False)
            assert done.returncode != 0
            assert "overloaded" in done.stderr
        small_server.wait_open(0)


@pytest.mark.parametrize("arguments", [["Hello"], ["--text", "Hello"]])
def test_curl_script_fails_when_nobody_answers(arguments: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        done = chat_sh(*arguments, url=f"http://127.0.0.1:{port}", check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "curl" in done.stderr


def test_every_program_is_listed_and_short() -> None:
    readme = (CLIENTS / "README.md").read_text(encoding="utf-8")
    programs = [*CLIENTS.glob("python/*.py"), *CLIENTS.glob("curl/*.sh")]
    programs += [*CLIENTS.glob("streamlit/*.py"), *CLIENTS.glob("js/*.mjs")]
    assert len(programs) >= 6
    for program in programs:
        name = program.relative_to(CLIENTS).as_posix()
        assert f"]({name})" in readme
        assert len(program.read_text(encoding="utf-8").splitlines()) <= 60


def node_of(server: RunningServer, run: Any) -> str:
    """What a node of clients/streamlit/app.py does, in its thread: how it ended."""
    run.check()
    with OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        try:
            client.chat.completions.create(
                model="any",
                messages=[{"role": "user", "content": "Count to 5"}],
                extra_headers=run.headers,
                extra_body={"ignore_eos": True},
            )
        except APIStatusError as error:
            return error.code or ""
    return "complete"


def test_a_button_stops_a_node_that_nobody_can_interrupt(demo_server: RunningServer) -> None:
    stopping = runpy.run_path(str(CLIENTS / "streamlit" / "stopping.py"))
    with ThreadPoolExecutor(1) as threads, stopping["Run"](demo_server.url) as run:
        with demo_server.paused_engine():
            node = threads.submit(node_of, demo_server, run)
            demo_server.wait_open(1)
            run.stop()
            assert node.result(timeout=30) == "cancelled"
        assert run.is_stopped
        with pytest.raises(stopping["Stopped"]):
            node_of(demo_server, run)


def test_a_button_stops_what_has_not_arrived_yet(demo_server: RunningServer) -> None:
    """Pressed between the node's check and the arrival of its request."""
    stopping = runpy.run_path(str(CLIENTS / "streamlit" / "stopping.py"))
    with ThreadPoolExecutor(2) as threads, stopping["Run"](demo_server.url) as run:
        run.check = lambda: None
        button = threads.submit(run.stop)
        wait_until(lambda: run.is_stopped, "the button is pressed")
        assert threads.submit(node_of, demo_server, run).result(timeout=30) == "cancelled"
        button.result(timeout=30)


def test_a_button_that_is_too_late_does_nothing(demo_server: RunningServer) -> None:
    stopping = runpy.run_path(str(CLIENTS / "streamlit" / "stopping.py"))
    with stopping["Run"](demo_server.url) as run:
        run.check()
    run.stop()
    assert run.is_stopped
