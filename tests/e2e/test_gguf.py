"""A server whose model is one GGUF file, with a tokenizer beside it and no config.json."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.model.stored.gguf_files import write_gguf

from .harness import RunningServer

DEMO = Path(__file__).parents[2] / "server" / "millstream" / "demo" / "model"


def test_a_model_in_a_gguf_file_answers_as_it_did_before(
    fleet: list[RunningServer], tmp_path: Path
) -> None:
    """The demo model in eight bits still counts."""
    folder = tmp_path / "counting"
    folder.mkdir()
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype="float32")
    end = {"tokenizer.ggml.eos_token_id": 2}
    write_gguf(folder / "demo-Q8_0.gguf", model, {"": "Q8_0"}, more=end)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, folder)
    flags = ["--model-id", str(folder), "--gguf-file", "demo-Q8_0.gguf"]
    server = RunningServer([*flags, "--kv-cache-memory", "64MiB"], tmp_path / "log", is_warm=True)
    fleet.append(server)
    try:
        answer = server.chat("Count to 10", max_tokens=64).json()
        assert answer["model"] == "counting"
        choice = answer["choices"][0]
        assert choice["message"]["content"].split() == [str(number) for number in range(1, 11)]
        assert choice["finish_reason"] == "stop"
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--gguf-file", "other.gguf"], "--gguf-file: {folder} has no file other.gguf"),
        ([], "--model-id: {folder} has GGUF files; name the one to load: --gguf-file m.gguf"),
    ],
)
def test_files_that_are_not_there_or_not_named_end_the_start_with_one_line(
    flags: list[str], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    arguments = ["--model-id", str(tmp_path), *flags]
    server = RunningServer(arguments, tmp_path / "log", is_awaited=False, is_warm=True)
    try:
        assert server.wait_exit() == 1
    finally:
        server.kill()
    assert reason.format(folder=tmp_path) in server.log().splitlines()[-1]
