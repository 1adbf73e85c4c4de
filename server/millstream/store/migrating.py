"""Brings the tables of a database to what this version knows, whoever else starts on it."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from millstream.errors import StartupError
from millstream.store import migrations

_LOCK = 0x6D696C6C73747265  # "millstre": one number for all servers
_ONE_AT_A_TIME = threading.Lock()
"""Alembic has one environment in a process."""


def migrate(engine: Engine, *, to: str = "head") -> None:
    """In one transaction, so that nobody sees half of it; others wait for it.

    Raises StartupError if the tables are those of a newer version.
    """
    with _ONE_AT_A_TIME, engine.begin() as connection:  # of SQLite it holds the lock of who writes
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        _check_known(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def _check_known(connection: Connection) -> None:
    revision = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise StartupError(
            f"the database of --store was written by a newer version of Millstream (its tables are "
            f"{revision}); start that version, or name another place",
            flag="--store",
        )


def _config() -> Config:
    config = Config()
    folder = str(Path(migrations.__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config
