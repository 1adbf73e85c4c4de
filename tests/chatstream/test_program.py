"""The program of ChatStream's own how-to runs with its import, the model and the device changed."""

from __future__ import annotations

from typing import Any

import torch
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.chatstream.conftest import END, DemoPrompt
from tests.embedded.conftest import DEMO
from tests.quotations import quoted_programs

CHANGES = {
    "from chatstream import": "from millstream.chatstream import",
    '"togethercomputer/RedPajama-INCITE-Chat-3B-v1"': repr(str(DEMO)),
    'device = "cuda"': 'device = "cpu"',
    "torch.float16": "torch.float32",  # as other tests have it
}


def test_the_how_to_runs_with_its_import_changed() -> None:
    program = "\n".join(quoted_programs("chatstream_server", "python"))
    for old, new in CHANGES.items():
        assert program.count(old) == 1
        program = program.replace(old, new)
    names: dict[str, Any] = {
        "AutoModelForCausalLM": AutoModelForCausalLM,
        "AutoTokenizer": AutoTokenizer,
        "ChatPrompt": DemoPrompt,  # which the how-to leaves to its reader
        "torch": torch,
    }
    exec(compile(program, "chatstream_server.txt", "exec"), names)
    chat_stream, app = names["chat_stream"], names["app"]
    chat_stream.append_apis(app, {"all": True})
    try:
        with TestClient(app) as client, TestClient(app) as other:
            client.post("/set_generation_params", json={"temperature": 0})
            answer = client.post("/chat_stream", json={"user_input": "Count to 5"})
            assert answer.text.split(END)[-2:] == ["1\n2\n3\n4\n5", ""]
            prompt = client.get("/get_prompt").json()["prompt"]
            assert prompt.count("%3C%7Cim_start%7C%3E") == 2
            assert list(client.cookies) == ["sid"]
            assert other.get("/get_prompt").json()["prompt"] is None
    finally:
        chat_stream.close()
