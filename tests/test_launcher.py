"""Text Generation Inference's flags and variables, as `millstream serve` takes them."""

from __future__ import annotations

import os

import pytest

from millstream.cli import main
from millstream.command_line import build_parser, parse_settings
from millstream.errors import StartupError
from millstream.launcher import (
    FOREIGN,
    HUB_CACHE,
    IGNORED,
    LIMITS,
    NEUTRAL,
    OTHERS_TOO,
    REFUSED,
    RENAMED,
    SAME,
    SWITCHES,
    LauncherOptions,
    translate,
)
from millstream.settings import Settings

FLAGS = """
model-id revision validation-workers sharded num-shard quantize speculate dtype kv-cache-dtype
trust-remote-code max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens
max-input-tokens max-input-length max-total-tokens waiting-served-ratio max-batch-prefill-tokens
max-batch-total-tokens max-waiting-tokens max-batch-size cuda-graphs hostname port prometheus-port
shard-uds-path master-addr master-port huggingface-hub-cache weights-cache-override
disable-custom-kernels cuda-memory-fraction rope-scaling rope-factor json-output otlp-endpoint
otlp-service-name cors-allow-origin api-key watermark-gamma watermark-delta ngrok ngrok-authtoken
ngrok-edge tokenizer-config-path disable-grammar-support env max-client-batch-size lora-adapters
usage-stats payload-limit enable-prefill-logprobs graceful-termination-timeout tokenizer-name
master-shard-uds-path max-image-fetch-size
"""
"""Source: TGI 3.3.6, `docs/source/reference/launcher.md`, and the last three the router's own."""


def said(*arguments: str, **environment: str) -> LauncherOptions:
    options = vars(build_parser().parse_args(["serve", *arguments]))
    del options["command"]
    return translate(options, environment)


def test_every_flag_of_the_launcher_is_known() -> None:
    names = {flag.replace("-", "_") for flag in FLAGS.split()}
    assert names == {*SAME, *FOREIGN}
    assert not set(SAME) & set(FOREIGN)
    assert set(SAME) <= set(Settings.model_fields)
    assert {*NEUTRAL} - {"disable_custom_kernels", "enable_prefill_logprobs"} <= {*REFUSED}


def test_flags_become_settings() -> None:
    found = said(
        "--hostname=0.0.0.0", "-p", "9000", "--max_input_length", "100", "-g", "5",
        "--cors-allow-origin", "https://a.example", "--cors-allow-origin", "https://b.example",
        "--disable-custom-kernels", "--max-best-of", "4", "--sharded", "false", "--num-shard", "1",
        "--enable-prefill-logprobs", "--huggingface-hub-cache", "/data", "--json-output",
    )  # fmt: skip
    settings = parse_settings(found.options)
    assert (settings.host, settings.port, settings.max_input_tokens) == ("0.0.0.0", 9000, 100)
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert (settings.native_kernels, settings.log_format) == ("off", "json")
    assert settings.graceful_termination_timeout == 5
    assert found.hub_cache == "/data"
    assert found.notes == []


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_means_nothing_is_said(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    found = said(flag) if name in SWITCHES else said(flag, "1")
    assert found.options == {}
    assert found.notes == [f"means nothing to this server: {flag}"]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_change_answers_is_refused(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(StartupError) as caught:
        said(flag, "2")
    assert caught.value.message == f"{flag} 2: this server does not do it; {REFUSED[name]}"


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_limits_that_are_lower_here_are_refused(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    assert said(flag, str(LIMITS[name])).notes == []
    with pytest.raises(StartupError, match=f"^{flag} .*the limit is {LIMITS[name]} here"):
        said(flag, str(LIMITS[name] + 1))
    with pytest.raises(StartupError, match=flag):
        said(flag, "many")


def test_what_is_said_twice_is_refused() -> None:
    with pytest.raises(StartupError, match="--max-input-length: --max-input-tokens says it"):
        said("--max-input-tokens", "5", "--max-input-length", "5")


def test_unknown_flags_stay_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        said("--max-input-lenght", "5")
    assert "--max-input-lenght" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(SWITCHES - OTHERS_TOO))
@pytest.mark.parametrize("value", ["true", "1", "True", "false", "0"])
def test_switches_are_variables_that_are_true_or_false(name: str, value: str) -> None:
    said(**{name.upper(): value})
    with pytest.raises(StartupError, match=name.upper()):
        said(**{name.upper(): "perhaps"})


def test_variables_of_an_image_are_taken() -> None:
    found = said(
        MODEL_ID="m", PORT="80", API_KEY="k", TRUST_REMOTE_CODE="true", HOSTNAME="box", ENV="prod",
        MAX_INPUT_LENGTH="7", VALIDATION_WORKERS="4", NUM_SHARD="1", JSON_OUTPUT="false", NGROK="",
        HUGGINGFACE_HUB_CACHE="/data",
    )  # fmt: skip
    settings = parse_settings(found.options)
    assert (settings.model_id, settings.port, settings.host) == ("m", 80, "127.0.0.1")
    assert (settings.trust_remote_code, settings.max_input_tokens) == (True, 7)
    assert found.hub_cache == "/data"
    assert "MODEL_ID" in found.notes[0]
    assert "VALIDATION_WORKERS" in found.notes[1]
    assert "HOSTNAME" not in found.notes[0]
    assert "'k'" not in repr(settings)


def test_variables_of_clouds_are_taken() -> None:
    found = said(HF_MODEL_ID="m", HF_MODEL_REVISION="r", SM_NUM_GPUS="1", AIP_HTTP_PORT="9")
    assert found.options == {"model_id": "m", "revision": "r", "port": "9"}
    with pytest.raises(StartupError, match=r"^SM_NUM_GPUS 4: "):
        said(HF_MODEL_ID="m", SM_NUM_GPUS="4")


def test_common_variables_alone_mean_nothing() -> None:
    assert said(PORT="80", API_KEY="k", REVISION="r", DTYPE="d", QUANTIZE="q").options == {}
    assert said(MASTER_ADDR="x", HOSTNAME="h", ENV="e").notes == []


def test_flags_win_then_our_variables() -> None:
    found = said("--port", "1", MODEL_ID="m", PORT="2", MILLSTREAM_MODEL_ID="ours")
    assert found.options == {"port": "1"}
    found = said("--hostname", "a", "--max-input-length", "3", MODEL_ID="m", MAX_INPUT_LENGTH="4")
    assert found.options == {"host": "a", "max_input_tokens": "3", "model_id": "m"}


def test_the_command_says_what_it_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("millstream.server_process.run", served.append)
    monkeypatch.setenv("MODEL_ID", "some/model")
    monkeypatch.setenv("HF_HUB_CACHE", "/before")
    main(["serve", "--speculate", "3", "--env", "--weights-cache-override", "/data"])
    lines = capsys.readouterr().err.splitlines()
    assert "millstream: means nothing to this server: --env" in lines
    assert "millstream: taken from the environment: MODEL_ID" in lines
    assert served[0].model_id == "some/model"
    assert served[0].speculate == 3
    assert os.environ["HF_HUB_CACHE"] == "/data"
    with pytest.raises(SystemExit):
        main(["serve", "--rope-factor", "2"])
    assert "--rope-factor 2: this server does not do it" in capsys.readouterr().err


def test_all_kinds_are_told_apart() -> None:
    kinds = [set(RENAMED), set(HUB_CACHE), set(LIMITS), set(REFUSED), set(IGNORED)]
    assert sum(map(len, kinds)) + 3 == len(set(FOREIGN))
