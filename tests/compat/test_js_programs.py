"""The programs of clients/js, run by Node as a user runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.harness import RunningServer, wait_until
from tests.quotations import quoted_programs

FOLDER = Path(__file__).parents[2] / "clients" / "js"
COUNTED = [str(number) for number in range(1, 11)]

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules").is_dir(), reason="no Node here"
)


def output(program: str, url: str) -> str:
    """What a program prints."""
    command = ["node", str(FOLDER / program), url]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def left(server: RunningServer) -> int:
    """How many answers ended because their client went away."""
    return server.log().count("error=client_left")


@pytest.mark.parametrize("program", ["openai_stream.mjs", "huggingface_chat.mjs"])
def test_streams_and_stops(program: str, demo_server: RunningServer) -> None:
    before = left(demo_server)
    printed = output(program, demo_server.url)
    whole, stopped = printed.removesuffix(" ... stopped\n"), " ... stopped\n"
    assert printed.endswith(stopped)
    text = re.sub(r"\(\d+ \+ \d+ tokens\)", "", whole)
    numbers = re.findall(r"\d+", text)
    assert numbers[:10] == COUNTED
    assert numbers[10:17] == COUNTED[:7]
    assert "90" not in numbers
    wait_until(lambda: left(demo_server) == before + 1, "the server has stopped")


def test_text_goes_on(demo_server: RunningServer) -> None:
    assert re.match(r"[\d\s]{8}", output("huggingface_text.mjs", demo_server.url))


def test_the_endpoint_of_a_guide(demo_server: RunningServer) -> None:
    """It asks for no length: its model may go on for long, and is left."""
    command = ["node", str(FOLDER / "huggingface_endpoint.mjs"), demo_server.url]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert len(program.stdout.read(8)) == 8
        program.kill()


def test_the_endpoint_s_program_is_the_guide_s() -> None:
    program = (FOLDER / "huggingface_endpoint.mjs").read_text(encoding="utf-8")
    (quoted,) = quoted_programs("tgi_streaming", "js")
    for printed, ours in (
        ("'@huggingface/inference'", "'huggingface-inference-2'"),
        (
            "'https://YOUR_ENDPOINT.endpoints.huggingface.cloud'",
            "process.argv[2] ?? 'http://127.0.0.1:8080'",
        ),
        ("'hf_YOUR_TOKEN'", "process.env.HF_TOKEN"),
    ):
        assert quoted.count(printed) == 1
        quoted = quoted.replace(printed, ours)
    assert program.partition("\n")[2] == quoted
