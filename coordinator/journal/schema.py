"""Brings the tables to what this version of the coordinator needs, when it starts."""

import threading
from typing import Final

from sqlalchemy import Connection, inspect, text

from coordinator.journal.errors import JournalOpenError

HEAD_REVISION: Final = "0004"
"""The newest revision. Said here too, so that a start that finds it need not load Alembic (0.2 s); a test compares the two."""
SCRIPT_LOCATION: Final = "coordinator.journal:migrations"
VERSION_TABLE: Final = "alembic_version"

_alembic = threading.Lock()
"""Alembic keeps what it is doing in globals: two databases of one process are migrated one after the other."""


def bring_up_to_date(connection: Connection, place: str) -> None:
    """Applies the migrations that are missing, within the database transaction of the connection: all of them or none.

    Raises JournalOpenError for a schema that this version does not know.
    """
    revision = current_revision(connection, place)
    if revision != HEAD_REVISION:
        _upgrade(connection, place, revision)


def current_revision(connection: Connection, place: str) -> str | None:
    """The revision that the database is at; None: it is empty. Raises JournalOpenError if it cannot be told."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = [str(row[0]) for row in connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))]  # noqa: S608 - our own name
    if len(found) > 1:
        raise JournalOpenError(
            place, expected="one schema revision", found=", ".join(sorted(found)), to_do="restore the database from a backup"
        )
    return found[0] if found else None


def _upgrade(connection: Connection, place: str, revision: str | None) -> None:
    from alembic import command  # noqa: PLC0415 - slow to load, and seldom needed
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", SCRIPT_LOCATION)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise JournalOpenError(
            place,
            expected=f"a schema of revision {HEAD_REVISION} or older",
            found=f"revision {revision}, which a newer coordinator must have written",
            to_do="start that version of the coordinator, or name another database",
        )
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
