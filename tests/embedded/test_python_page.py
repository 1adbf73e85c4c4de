"""docs/python.md runs as written, with the demo model in place of the one it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from millstream.embedded.keywords import EngineSettings, LoadingSettings
from millstream.embedded.options import ChatOptions
from tests.embedded.conftest import DEMO, our_threads

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def names_in(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def test_examples_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    threads = our_threads()
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(examples) == 11
    namespace: dict[str, Any] = {"__name__": "page"}
    shown = []
    for number, example in enumerate(examples):
        code = example.replace("Qwen/Qwen3-0.6B", str(DEMO))
        exec(compile(code, f"python.md, example {number}", "exec"), namespace)
        shown.append(capsys.readouterr().out)
        if "app = " in example:
            asked = ["/llm"] if "chat = " in example else ["/mine", "/other"]
            with TestClient(namespace["app"], headers={"x-user": "ada"}) as client:
                for path in asked:
                    body = {"input": "Count to 5", "model": "m", "temperature": 0}
                    response = client.post(f"{path}/v1/responses", json=body).json()
                    assert response["output"][0]["content"][0]["text"] == "1\n2\n3\n4\n5"
                if asked == ["/mine", "/other"]:
                    assert client.get("/mine/v1/models", headers={"x-user": ""}).status_code == 401
    assert (tmp_path / "millstream" / "store.db").is_file()
    assert shown[0] == "1\n2\n3\n4\n5 stop 10\nThis is a test. stop 9\n"
    assert shown[1] == "1\n2\n3\n4\n5This is a test.\n"
    assert shown[2] == "1\n2\n3\n4\n5"
    assert len(set(shown[3].splitlines())) == 1
    assert shown[4] == "The weather in Paris is sunny, 21 degrees.\n"
    assert shown[5] == "['age', 'name']\n[True, True, True]\n"
    assert shown[6] == "200 429 0\n"
    assert shown[9].startswith("1 of 2 prompts failed")
    assert namespace["answers"][0].text == "1\n2\n3\n4\n5"
    assert shown[10] == "LlamaForCausalLM cpu 2048\n0 None\n"
    assert our_threads() == threads


def test_options_and_settings_are_all_named() -> None:
    options = PAGE.split("the HTTP API:")[1].split("\n\n")[0]
    assert names_in(options) == set(ChatOptions.__annotations__)
    loading, both = PAGE.split("the loading\noptions too:")[1].split("Both take")
    assert names_in(both.split("which")[0]) == set(EngineSettings.__annotations__)
    assert names_in(loading) == set(LoadingSettings.__annotations__) - set(
        EngineSettings.__annotations__
    )
