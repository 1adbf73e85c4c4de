"""Flags, environment variables, and what the operator reads."""

from __future__ import annotations

import pytest

from millstream.cli import build_parser, main, parse_settings
from millstream.core.info import EngineInfo
from millstream.errors import StartupError
from millstream.server_process import describe
from millstream.settings import Settings
from tests.fakes import fake_info


def settings_for(*arguments: str) -> Settings:
    options = vars(build_parser().parse_args(["serve", *arguments]))
    del options["command"]
    return parse_settings(options)


def test_hyphens_and_underscores_are_the_same() -> None:
    assert settings_for("--max-queue-size", "3").max_queue_size == 3
    assert settings_for("--max_queue_size=4", "--max_concurrent_requests", "5") == settings_for(
        "--max-queue-size=4", "--max-concurrent-requests", "5"
    )


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_field_is_a_flag_and_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {"dtype": "float32", "block_size": "32", "log_level": "error", "device": "cpu"}
    examples["quantize"] = "int8"
    examples["native_kernels"] = "off"
    field = Settings.model_fields[name]
    is_flag = field.annotation is bool
    value = examples.get(name, "7")
    given = settings_for(*([f"--{name}"] if is_flag else [f"--{name}", value]))
    monkeypatch.setenv(f"MILLSTREAM_{name.upper()}", "true" if is_flag else value)
    assert settings_for() == given
    assert getattr(given, name) != field.default


def test_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_PORT", "1000")
    assert settings_for("--port", "2000").port == 2000
    assert settings_for().port == 1000


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--port", "70000"], "--port"),
        (["--max-concurrent-requests", "0"], "--max-concurrent-requests"),
        (["--max-queue-size", "-1"], "--max-queue-size"),
        (["--dtype", "int8"], "--dtype"),
        (["--kv-cache-memory", "lots"], "--kv-cache-memory"),
        (["--block-size", "17"], "--block-size"),
    ],
)
def test_wrong_values_name_the_flag(arguments: list[str], flag: str) -> None:
    with pytest.raises(StartupError, match=flag):
        settings_for(*arguments)


def test_sizes_have_units() -> None:
    assert settings_for("--kv-cache-memory", "2GiB").kv_cache_memory == 2 * 2**30


def test_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--max-queue", "3"])
    assert caught.value.code == 2
    assert "--max-queue" in capsys.readouterr().err


def test_startup_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--port", "0", "--model-id", "/does/not/exist"])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("millstream: --model-id")
    assert len(error.splitlines()) == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("millstream ")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_banner_names_everything_and_how_to_try_it(host: str) -> None:
    info: EngineInfo = fake_info(num_blocks=10, block_size=4)
    text = describe(info, Settings(), host=host, port=81)
    base = "http://[::1]:81" if ":" in host else f"http://{host}:81"
    assert f"ready on {base}" in text
    assert f"curl -N {base}/v1/chat/completions" in text
    for fact in ("millstream-demo", "Fake", "40 tokens in 10 blocks", "attention none", "toy"):
        assert fact in text
    assert "toy" not in describe(info, Settings(model_id="other"), host=host, port=81)
