"""Flags, environment variables, and what the operator reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ByteSize, SecretStr

from millstream.announcement import describe
from millstream.cli import main
from millstream.command_line import GROUPS, build_parser, parse_settings
from millstream.core.status import EngineInfo
from millstream.errors import StartupError
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


@pytest.mark.parametrize(
    ("flag", "answer"),
    [("--prot", "(did you mean --port?)"), ("--quantise=int8", "mean --quantize?)"), ("--xyz", "")],
)
def test_an_unknown_flag_is_told_with_the_one_that_was_meant(
    flag: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["serve", flag])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"millstream: error: unrecognized arguments: {flag}")
    assert said.endswith(answer or flag)


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_field_is_a_flag_and_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {"dtype": "float32", "block_size": "32", "log_level": "error", "device": "cpu"}
    examples["quantize"] = "int8"
    examples |= {"native_kernels": "off", "page": "off", "log_format": "json"}
    examples |= {"otlp_traces_endpoint": "http://localhost:4318"}
    examples |= {"allowed_origins": "https://chat.example", "root_path": "/llm"}
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


def test_the_env_file_of_llm_token_stream_gives_its_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("millstream.server_process.run", served.append)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_MODEL", "gpt-4o-mini")
    main(["serve"])
    assert capsys.readouterr().err == ""  # other programs have those names, too
    monkeypatch.setenv("TIME_BETWEEN_CHUNKS", "0.1")
    main(["serve"])
    main(["serve", "--time-between-chunks", "2"])
    noted = capsys.readouterr().err
    assert noted.count("OPENAI_API_KEY is not used") == 2
    assert "sk-secret" not in noted
    monkeypatch.setenv("MILLSTREAM_SERVED_MODEL_NAME", "mine")
    main(["serve"])
    names = ["millstream-demo", "gpt-4o-mini", "gpt-4o-mini", "mine"]
    assert [settings.model_name for settings in served] == names
    assert [settings.time_between_chunks for settings in served] == [0, 0.1, 2, 0.1]
    # Nobody is locked out by a key that was for OpenAI.
    assert {settings.api_key for settings in served} == {None}
    monkeypatch.setenv("TIME_BETWEEN_CHUNKS", "often")
    with pytest.raises(SystemExit):
        main(["serve"])
    assert "--time-between-chunks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--port", "70000"], "--port"),
        (["--max-concurrent-requests", "0"], "--max-concurrent-requests"),
        (["--max-queue-size", "-1"], "--max-queue-size"),
        (["--dtype", "int8"], "--dtype"),
        (["--kv-cache-memory", "lots"], "--kv-cache-memory"),
        (["--block-size", "17"], "--block-size"),
        (["--allowed-origins", "https://chat.example/"], "--allowed-origins"),
        (["--allowed-origins", "chat.example"], "--allowed-origins"),
        (["--allowed-hosts", "http://llm.example"], "--allowed-hosts"),
        (["--allowed-hosts", "llm.example:8080"], "--allowed-hosts"),
        (["--allowed-hosts", "llm.*"], "--allowed-hosts"),
        (["--allowed-hosts", "llm.example,"], "--allowed-hosts"),
        (["--root-path", "llm/"], "--root-path"),
        (["--api-key", "good,"], "--api-key"),
    ],
)
def test_wrong_values_name_the_flag(arguments: list[str], flag: str) -> None:
    with pytest.raises(StartupError, match=flag) as caught:
        settings_for(*arguments)
    assert caught.value.exit_status == 2


def test_what_kubernetes_sets_for_a_service_of_our_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(StartupError, match=r"^MILLSTREAM_PORT: .*enableServiceLinks: false"):
        settings_for()
    assert settings_for("--port", "9000").port == 9000
    monkeypatch.setenv("MILLSTREAM_PORT", "eighty")
    with pytest.raises(StartupError, match=r"^MILLSTREAM_PORT: .*\(got eighty\)$"):
        settings_for()


def test_lists_are_given_with_commas_or_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(settings: Settings) -> list[str]:
        return [key.get_secret_value() for key in settings.api_key or ()]

    assert keys(settings_for("--api-key", "one, two", "--api_key=three")) == ["one", "two", "three"]
    monkeypatch.setenv("MILLSTREAM_API_KEY", "four,five")
    assert keys(settings_for()) == ["four", "five"]
    monkeypatch.setenv("MILLSTREAM_API_KEY", "")
    with pytest.raises(StartupError, match="MILLSTREAM_API_KEY"):
        settings_for()  # an empty variable must not open the server


def test_secrets_are_not_shown() -> None:
    secrets = {"--api-key": "sesame", "--ssl-keyfile-password": "mellon"}
    given = settings_for(
        *(word for pair in secrets.items() for word in pair),
        *("--store", "postgresql://me:alohomora@db/chats"),
    )
    shown = f"{given!r} {given} {given.model_dump()} {given.model_dump_json()}"
    assert "sesame" not in shown
    assert "mellon" not in shown
    assert "alohomora" not in shown
    assert "api_key" not in given.model_dump(), "what goes to the engine has no place for keys"
    for wrong in ("ses ame", "sésame", "sesame,"):
        with pytest.raises(StartupError) as caught:
            settings_for("--api-key", wrong)
        assert "same" not in caught.value.message


def test_a_model_is_called_by_the_last_part_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "llama-3"
    folder.mkdir(parents=True)
    for spelling in (str(folder), f"{folder}/", "models/llama-3", "./models/../models/llama-3/."):
        assert Settings(model_id=spelling).model_name == "llama-3", spelling
    assert Settings(model_id=".").model_name == tmp_path.name
    assert Settings(model_id="/").model_name == "/"
    assert Settings(model_id="org/llama-3").model_name == "org/llama-3"
    assert Settings(model_id=str(folder), served_model_name="a/b").model_name == "a/b"


def test_sizes_have_units() -> None:
    assert settings_for("--kv-cache-memory", "2GiB").kv_cache_memory == 2 * 2**30


def test_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--max-queue", "3"])
    assert caught.value.code == 2
    assert "--max-queue" in capsys.readouterr().err


def printed_help(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed_help(capsys=capsys)
    assert re.findall(r"^  +(millstream serve.*?)  ", text, re.M)[0] == "millstream serve"
    assert "millstream serve --model-id" in text
    assert "engine" not in text.split(), "a command for the server itself"


def test_no_command_is_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == printed_help(capsys=capsys)
    with pytest.raises(SystemExit) as caught:
        main(["serv"])
    assert caught.value.code == 2
    assert "engine" not in capsys.readouterr().err


def test_help_shows_each_flag_once_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed_help("serve", capsys=capsys)
    groups = {
        title: re.findall(r"^  (--[a-z-]+)", part, re.M)
        for title, part in re.findall(r"^([a-z ]+):\n(.*?)(?=\n\n|\Z)", text, re.M | re.S)
    }
    flags = [f"--{name.replace('_', '-')}" for name in Settings.model_fields]
    assert [flag for title in GROUPS.values() for flag in groups[title]] == flags
    assert "--port" in groups["network and access"]
    assert "--trust-remote-code, --no-trust-remote-code\n" in text
    for name in Settings.model_fields:
        assert "_" not in name or f"--{name}" not in text
    examples = re.findall(r"^  .*?millstream (serve --.+)$", text.split("examples:")[1], re.M)
    assert len(examples) == 2
    for example in examples:
        settings_for(*example.split()[1:])


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


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_pages_are_told_at_an_address_that_browsers_know(host: str) -> None:
    info: EngineInfo = fake_info(num_blocks=10, block_size=4)
    settings = Settings(root_path="/llm")
    text = describe(info, settings, host=host, port=81, store="memory")
    assert "  chat       http://localhost:81/llm/ in a browser\n" in text
    assert "  routes     http://localhost:81/llm/docs " in text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_banner_names_everything_and_how_to_try_it(host: str) -> None:
    info: EngineInfo = fake_info(num_blocks=10, block_size=4)
    where = {"host": host, "port": 81, "store": "memory"}
    text = describe(info, Settings(), **where)
    base = "http://[::1]:81" if ":" in host else f"http://{host}:81"
    assert f"ready on {base}" in text
    first, second, *_ = text.strip().splitlines()
    assert first.endswith(base)
    assert second == f"  chat       {base}/ in a browser"
    assert f"{base}/docs" in text
    assert "in a browser" not in describe(info, Settings(page="off"), **where)
    assert f"curl -N {base}/v1/chat/completions" in text
    for fact in ("millstream-demo", "Fake", "40 tokens in 10 blocks", "attention none", "toy"):
        assert fact in text
    assert "answers of at most" not in text
    limited = Settings(max_output_tokens=4096)
    assert "each, answers of at most 4,096\n" in describe(info, limited, **where)
    assert "toy" not in describe(info, Settings(model_id="other"), **where)
    kept = Settings(cache_folder=Path("/var/cache/blocks"), cache_folder_bytes=ByteSize(2**30))
    text = describe(info, kept, **where)
    assert "\n  on disk    1.0GiB at most in /var/cache/blocks\n" in text
    guarded = Settings(ssl_certfile="x.pem", api_key=(SecretStr("sesame"),))
    text = describe(info, guarded, **where)
    assert "on disk" not in text
    assert f"ready on {base.replace('http', 'https')}" in text
    assert "-H 'Authorization: Bearer KEY'" in text
    assert "sesame" not in text
