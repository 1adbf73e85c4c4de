"""The file of keys, and the keys that are known while it changes."""

from __future__ import annotations

import logging
import os
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from millstream.errors import StartupError, Unauthorized
from millstream.quotas.account import Ledger
from millstream.quotas.key_ring import KeyRing
from millstream.quotas.keys_file import read_keys_file
from millstream.quotas.limits import KeyLimits

HIDDEN = "sk-very-secret"
ONE = f'[[keys]]\nlabel = "one"\nkey = "{HIDDEN}"\n'


def digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(ONE)
    path.chmod(0o600)
    return path


def replace_file(file: Path, text: str | None) -> None:
    """As tools do that write a new file and rename it; None takes it away."""
    if text is None:
        file.unlink()
        return
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


def test_keys_and_their_limits(file: Path) -> None:
    file.write_text(
        ONE + f'requests_per_minute = 60\ntokens_per_minute = 100_000\n[[keys]]\nlabel = "b.2"\n'
        f'sha256 = "{digest("other").hex().upper()}"\nmax_concurrent_requests = 4\n'
        "max_output_tokens = 9\n"
    )
    one, two = read_keys_file(file)
    assert (one.label, one.digest) == ("one", digest(HIDDEN))
    assert one.limits == KeyLimits(requests_per_minute=60, tokens_per_minute=100_000)
    assert (two.label, two.digest) == ("b.2", digest("other"))
    assert two.limits == KeyLimits(max_concurrent_requests=4, max_output_tokens=9)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"keys: Field required"),
        ("keys = []", r"keys: List should have at least 1 item"),
        (
            ONE + "requests_per_minute = 0",
            r"keys\[0\].requests_per_minute: .*greater than or equal",
        ),
        (ONE + "requests_per_minute = true", r"keys\[0\].requests_per_minute: .*valid integer"),
        (ONE + "tokens_per_minute = 1.5", r"keys\[0\].tokens_per_minute: .*valid integer"),
        (ONE + "tokens = 5", r"keys\[0\].tokens: Extra inputs"),
        (ONE + "[defaults]\n", r"defaults: Extra inputs"),
        ('[[keys]]\nkey = "k"', r"keys\[0\].label: Field required"),
        ('[[keys]]\nlabel = "a"', r"keys\[0\]: give either key or sha256"),
        (ONE + f'sha256 = "{"a" * 64}"', r"keys\[0\]: give either key or sha256"),
        ('[[keys]]\nlabel = "a"\nsha256 = "abc"', r"keys\[0\].sha256: .*pattern"),
        ('[[keys]]\nlabel = "a b"\nkey = "k"', r"keys\[0\].label: .*pattern"),
        ('[[keys]]\nlabel = "a\\n"\nkey = "k"', r"keys\[0\].label: .*pattern"),
        ('[[keys]]\nlabel = "a"\nkey = "very secret"', r"keys\[0\].key: .*without blanks"),
        (ONE + ONE, r"two keys are called one"),
        (ONE + ONE.replace("one", "two"), r"one and two have the same key"),
        (f"[[keys]]\nkey = {HIDDEN}", r"no valid TOML"),
        (f'{HIDDEN} = 1\n"{HIDDEN}" = 2', r"no valid TOML"),
    ],
)
def test_what_is_wrong_is_named_and_no_key_shown(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(StartupError, match=f"^--api-keys-file: .*{reason}") as refused:
        read_keys_file(file)
    assert "secret" not in refused.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: No such file"):
        KeyRing(file=tmp_path / "missing")
    with pytest.raises(StartupError, match="cannot be read: Is a directory"):
        KeyRing(file=tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(StartupError, match="no UTF-8"):
        KeyRing(file=tmp_path / "binary")


def test_keys_of_both_places_open(file: Path) -> None:
    ring = KeyRing([SecretStr("plain"), SecretStr(HIDDEN)], file)
    plain, labelled = ring.find(digest("plain")), ring.find(digest(HIDDEN))
    assert plain is not None
    assert labelled is not None
    assert (plain.label, labelled.label) == ("", "one")
    assert ring.find(digest("wrong")) is None
    assert list(ring.labelled) == [labelled]


async def test_a_key_of_both_places_keeps_what_it_has_used(file: Path, ledger: Ledger) -> None:
    ring = KeyRing([SecretStr(HIDDEN)], file, ledger=ledger)
    quota = ring.quota(digest(HIDDEN).hex())
    quota.admit(1, param="n")
    replace_file(file, ONE + "requests_per_minute = 5\n")
    for _ in range(2):
        await ring.look()
    again = ring.quota(digest(HIDDEN).hex())
    assert (again.label, again.limits.requests_per_minute) == ("one", 5)
    assert (again.counts.num_requests, again.counts.num_open) == (1, 1)


async def test_a_file_that_has_changed_is_read_again(file: Path, ledger: Ledger) -> None:
    ring = KeyRing([SecretStr("plain")], file, ledger=ledger)
    owner, other = digest(HIDDEN).hex(), digest("other").hex()
    ring.quota(owner).admit(1, param="n")
    replace_file(file, ONE + 'requests_per_minute = 5\n[[keys]]\nlabel = "two"\nkey = "other"\n')
    await ring.look()
    with pytest.raises(Unauthorized):
        ring.quota(other)  # somebody may still be writing
    await ring.look()
    assert ring.quota(other).label == "two"
    quota = ring.quota(owner)
    assert (quota.counts.num_requests, quota.counts.num_open) == (1, 1)
    assert quota.limits.requests_per_minute == 5

    replace_file(file, '[[keys]]\nlabel = "two"\nkey = "other"\n')
    await ring.look()
    await ring.look()
    with pytest.raises(Unauthorized, match="no longer valid"):
        ring.quota(owner)
    assert ring.find(digest("plain")) is not None


@pytest.mark.parametrize("text", ["[[keys]", None])
async def test_a_file_that_is_no_use_changes_nothing(
    file: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing(file=file)
    replace_file(file, text)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            await ring.look()
    assert ring.find(digest(HIDDEN)) is not None
    assert len(caplog.records) == 1
    assert "the keys that were known stay" in caplog.text
    replace_file(file, ONE.replace("one", "uno"))
    await ring.look()
    await ring.look()
    assert [quota.label for quota in ring.labelled] == ["uno"]


def test_a_file_that_all_can_read_is_told(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeyRing(file=file)
    assert not caplog.records
    file.chmod(0o644)
    KeyRing(file=file)
    assert "every user of this machine can read" in caplog.text
