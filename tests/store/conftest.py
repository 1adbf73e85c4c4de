"""Stores on every database: a file, memory, a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from millstream.store import writer
from millstream.store.address import StoreAddress
from millstream.store.store import Store

_ADMIN = "dbname=postgres user=millstream"


class PostgreSQL:
    """A server of its own in a folder, reached by a socket there. Databases are made as needed."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self.folder = folder

    def create(self) -> None:
        """Makes the files of the server, and starts it."""
        self._run("initdb", "--pgdata", self._data, "--username=millstream", "--auth=trust", "-N")
        self.start()

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-o", options, "-l", self._log)

    def stop(self) -> None:
        """Clients lose their connections."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self._data)

    def discard(self) -> None:
        """Stops without writing to its files what it still has in memory."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data)

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"store_{uuid.uuid4().hex}"
        with psycopg.connect(f"host={self.folder} {_ADMIN}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://millstream@/{name}?host={self.folder}"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    @property
    def _log(self) -> str:
        return str(self.folder / "log")

    def _run(self, program: str, *arguments: str) -> None:
        # PostgreSQL does not run as root.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        command = [*(user if os.getuid() == 0 else []), str(self._binaries / program), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        assert done.returncode == 0, done.stdout.decode()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Not pytest's folder: its parents are closed to the user that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="millstream-pg-") as name:
        if os.getuid() == 0:
            shutil.chown(name, "postgres", "postgres")
        server = PostgreSQL(Path(initdb).parent, Path(name))
        server.create()
        yield server
        with contextlib.suppress(AssertionError):
            server.discard()


@pytest.fixture(autouse=True)
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits follow each other at once: tests write one thing after the other, and their pace
    (test_writer.py) would be most of the time they take."""
    monkeypatch.setattr(writer, "_PACE", 0.0)


@pytest.fixture(params=["sqlite", "memory", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> StoreAddress:
    text = str(tmp_path / "store.db") if request.param == "sqlite" else "memory"
    if request.param == "postgresql":
        text = request.getfixturevalue("postgresql").new_database()
    found = StoreAddress.parse(text)
    assert found is not None
    return found


@pytest.fixture
async def store(address: StoreAddress) -> AsyncIterator[Store]:
    opened = await Store.open(address)
    yield opened
    await opened.close()
