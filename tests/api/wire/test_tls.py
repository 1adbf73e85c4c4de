"""Certificates and keys that do not serve are told before anything else happens."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from millstream.api.wire.server import load_tls
from millstream.cli import main
from millstream.errors import StartupError
from millstream.settings import Settings
from tests.certificates import make_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    found = {}
    for name, password in (("plain", ""), ("other", ""), ("secret", "mellon")):
        found[f"{name}.pem"], found[f"{name}.key"] = make_certificate(
            folder, name, password=password
        )
    both = folder / "both.pem"
    both.write_text(Path(found["plain.pem"]).read_text() + Path(found["plain.key"]).read_text())
    empty = folder / "empty.pem"
    empty.write_text("no certificate")
    missing = folder / "missing.pem"
    folders = {"folder": str(folder), "missing.pem": str(missing)}
    return found | {"both.pem": str(both), "empty.pem": str(empty)} | folders


def load(files: dict[str, str], **names: str) -> ssl.SSLContext | None:
    known: dict[str, Any] = {f"ssl_{k}": files.get(v, v) for k, v in names.items()}
    return load_tls(Settings(**known))


def test_what_serves(files: dict[str, str]) -> None:
    assert load(files) is None
    assert load(files, certfile="both.pem")
    assert load(files, certfile="plain.pem", keyfile="plain.key")
    tls = load(files, certfile="secret.pem", keyfile="secret.key", keyfile_password="mellon")
    assert tls is not None
    assert tls.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"certfile": "missing.pem"}, "--ssl-certfile: there is no file"),
        ({"certfile": "folder"}, "--ssl-certfile: there is no file"),
        ({"certfile": "plain.pem", "keyfile": "missing.pem"}, "--ssl-keyfile: there is no file"),
        ({"keyfile": "plain.key"}, "--ssl-keyfile: a certificate is needed"),
        ({"certfile": "empty.pem"}, "--ssl-certfile: no PEM certificate"),
        ({"certfile": "plain.pem"}, "--ssl-certfile: no PEM certificate with its private key"),
        ({"certfile": "plain.pem", "keyfile": "empty.pem"}, "--ssl-certfile and --ssl-keyfile"),
        ({"certfile": "plain.pem", "keyfile": "other.key"}, "key is not that of the certificate"),
        ({"certfile": "secret.pem", "keyfile": "secret.key"}, "--ssl-keyfile-password"),
        (
            {"certfile": "secret.pem", "keyfile": "secret.key", "keyfile_password": "friend"},
            "--ssl-keyfile-password",
        ),
    ],
    ids=str,
)
def test_what_does_not(files: dict[str, str], names: dict[str, str], message: str) -> None:
    with pytest.raises(StartupError) as caught:
        load(files, **names)
    assert message in caught.value.message
    assert "friend" not in caught.value.message


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--ssl-certfile", "/does/not/exist.pem"], "--ssl-certfile"),
        (["--allow-credentials", "--allowed-origins", "*"], "--allow-credentials"),
    ],
)
def test_told_before_the_model_is_looked_for(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--port", "0", "--model-id", "/no/model", *flags])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"millstream: {named}")
    assert len(error.splitlines()) == 1
