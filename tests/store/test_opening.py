"""Where a store is, who may read it, and what is said when it cannot be used."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from millstream.errors import StartupError
from millstream.store.address import StoreAddress
from millstream.store.database import connect
from millstream.store.item_rows import insert_items
from millstream.store.migrating import migrate
from millstream.store.store import Store
from millstream.store.tables import metadata
from tests.store.things import OWNER, answered, items, response, texts


def address_of(given: str | Path) -> StoreAddress:
    address = StoreAddress.parse(str(given))
    assert address is not None
    return address


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "kind", "shown"),
    [
        ("memory", "memory", "memory"),
        ("sqlite://", "memory", "memory"),
        ("/data/a.db", "sqlite", "/data/a.db"),
        ("sqlite:////data/a.db", "sqlite", "/data/a.db"),
        ("postgresql://me:secret@db:5433/chats", "postgresql", "postgresql://me:***@db:5433/chats"),
        ("postgresql://db/x?password=secret", "postgresql", "postgresql://db/x"),
    ],
)
def test_an_address_is_shown_without_a_password(given: str, kind: str, shown: str) -> None:
    address = address_of(given)
    assert (address.kind, str(address)) == (kind, shown)
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    "given",
    [
        "mysql://h/d",
        "redis://u:secret@h",
        "postgresql://h:nan/d",
        "sqlite:///a?mode=ro",
        "~nobody-here/a",
    ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(StartupError) as error:
        StoreAddress.parse(given)
    assert "--store" in error.value.message
    assert "secret" not in error.value.message


def test_nothing_is_stored_when_it_is_off() -> None:
    assert StoreAddress.parse("off") is None


@pytest.mark.skipif(sys.platform != "linux", reason="folders of other systems")
async def test_by_default_it_is_in_the_folder_of_the_user_s_data(home: Path) -> None:
    store = await Store.open(address_of("auto"))
    await answered(store, "r1")
    folder = home / "data" / "millstream"
    assert store.description == str(folder / "store.db")
    assert mode_of(folder) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"store.db", "store.db-wal", "store.db-shm"}
    assert {mode_of(path) for path in files} == {0o600}
    assert mode_of(folder / "store.db-servers") == 0o700
    await store.close()
    assert sorted(path.name for path in folder.iterdir()) == ["store.db", "store.db-servers"]


async def test_a_home_that_cannot_be_written_is_replaced_by_memory(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "data").write_text("a file where the folder should be", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        store = await Store.open(address_of("auto"))
    assert store.description == "memory"
    assert "kept in memory" in caplog.text
    await answered(store, "r1")
    assert texts(await store.outputs("r1", owner=OWNER)) == ["r1 out"]
    await store.close()


async def test_a_user_without_a_home_has_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    store = await Store.open(address_of("auto"))
    assert store.description == "memory"
    await store.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("problem", ["folder", "parent"])
async def test_a_place_that_was_named_is_not_replaced(tmp_path: Path, problem: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    path = tmp_path if problem == "folder" else tmp_path / "file" / "store.db"
    with pytest.raises(StartupError) as error:
        await Store.open(address_of(path))
    assert str(path) in error.value.message
    assert error.value.flag == "--store"


async def test_what_was_stored_is_there_after_another_start(address: StoreAddress) -> None:
    if address.kind == "memory":
        pytest.skip("memory forgets")
    for number in range(3):
        store = await Store.open(address)
        for earlier in range(number):
            assert texts(await store.outputs(f"r{earlier}", owner=OWNER)) == [f"r{earlier} out"]
        await answered(store, f"r{number}")
        await store.close()


@pytest.mark.parametrize("where", ["beginning", "middle"])
@pytest.mark.parametrize("place", ["named", "default"])
async def test_a_damaged_file_is_named(home: Path, where: str, place: str) -> None:
    address = address_of("auto" if place == "default" else home / "store.db")
    assert address.path is not None
    store = await Store.open(address)
    for number in range(50):
        await store.begin(response(f"r{number}"), items("x" * 5_000))
    await store.close()
    with address.path.open("r+b") as file:
        file.seek(0 if where == "beginning" else address.path.stat().st_size // 2)
        file.write(os.urandom(8_192))
    with pytest.raises(StartupError) as error:
        await Store.open(address)
    assert str(address.path) in error.value.message
    assert "damaged" in error.value.message
    assert "move it away" in error.value.message


async def test_a_newer_database_is_refused(address: StoreAddress) -> None:
    if address.kind == "memory":
        pytest.skip("memory has no past")
    await (await Store.open(address)).close()
    database = connect(address, busy_seconds=1)
    with database.writing.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.dispose()
    with pytest.raises(StartupError, match="newer version"):
        await Store.open(address)


async def test_a_database_of_an_older_version_is_brought_up_to_date(
    address: StoreAddress,
) -> None:
    database = connect(address, busy_seconds=1)
    migrate(database.writing, to="0001")
    if address.kind == "memory":
        database.dispose()
        pytest.skip("memory has no past")
    with database.writing.begin() as connection:
        insert_items(connection, items("old"), owner=OWNER, response_id="r1", direction="output")
    database.dispose()
    store = await Store.open(address)
    assert texts(await store.items(["item_old"], owner=OWNER)) == ["old"]
    assert texts(await store.outputs("r1", owner=OWNER)) == ["old"]
    await store.close()


def test_the_steps_make_the_tables(address: StoreAddress) -> None:
    database = connect(address, busy_seconds=1)
    migrate(database.writing)
    with database.writing.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        if address.kind != "postgresql":
            assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1
            assert connection.execute(text("PRAGMA auto_vacuum")).scalar() == 2
    database.dispose()


async def test_many_start_at_once_on_an_empty_database(address: StoreAddress) -> None:
    stores = await asyncio.gather(*(Store.open(address) for _ in range(4)))
    for number, store in enumerate(stores):
        await answered(store, f"r{number}")
    for number, store in enumerate(stores):
        if address.kind != "memory":
            assert await store.response(f"r{(number + 1) % 4}", owner=OWNER) is not None
        await store.close()


async def test_a_postgresql_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError) as error:
        await Store.open(address_of(f"postgresql://me:secret@/chats?host={tmp_path}"))
    assert "postgresql://me" in error.value.message
    assert "secret" not in error.value.message


def test_without_its_driver_postgresql_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["psycopg"] = None
from millstream.store.address import StoreAddress
from millstream.store.store import Store
asyncio.run(Store.open(StoreAddress.parse("postgresql://db/chats")))
"""
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert b"StartupError: PostgreSQL needs its driver: pip install 'millstream[postgres]'" in (
        done.stderr
    )


async def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE conversations (name TEXT)")
    connection.close()
    with pytest.raises(StartupError) as error:
        await Store.open(address_of(path))
    assert str(path) in error.value.message
