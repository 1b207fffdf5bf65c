"""Brings the tables to what this version of the coordinator needs, when it starts.

Several releases may share a database while nodes are replaced one after the other. So a change that older code cannot live with comes in a
pair: a revision that adds, and a later one that says by `NEEDS` which revision every live node must know before it takes away. The last
node that is replaced applies it. What code must know at least to work on the tables as they are stands in the table `schema_floor`: code of
an older release that is started again meanwhile looks there, and not at revisions that it has never heard of.
"""

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, inspect, select, text, update

from coordinator.journal.errors import JournalOpenError
from coordinator.journal.tables import SCHEMA_FLOOR

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

HEAD_REVISION: Final = "0005"
"""The newest revision. Said here too, so that a start that finds it need not load Alembic (0.2 s); a test compares the two."""
NEEDED_REVISION: Final = "0003"
"""What nodes beside this one must know. A kind of event is read for one release before it is written: the release that writes it raises
this to the revision of the release that reads it, and so nobody is left who would set sagas aside because of it (R34)."""
SCRIPT_LOCATION: Final = "coordinator.journal:migrations"
VERSION_TABLE: Final = "alembic_version"

_alembic = threading.Lock()
"""Alembic keeps what it is doing in globals: two databases of one process are migrated one after the other."""


def bring_up_to_date(connection: Connection, place: str, *, others: Collection[str] = ()) -> None:
    """Applies the migrations that are missing, within the database transaction of the connection: all of them that `others` can live with,
    which is the newest revision that each live node beside this one knows.

    Raises JournalOpenError for a schema on which this version cannot work, and for nodes beside which it cannot.
    """
    oldest = min(others, default=HEAD_REVISION)
    if oldest < NEEDED_REVISION:
        raise JournalOpenError(
            place,
            expected=f"nodes of releases that know revision {NEEDED_REVISION} of the schema",
            found=f"a node that is alive and knows revision {oldest} at most",
            to_do="stop the nodes of that release first, or go over a release in between",
        )
    revision = current_revision(connection, place)
    if revision != HEAD_REVISION:
        _upgrade(connection, place, revision, oldest)
    if inspect(connection).has_table(SCHEMA_FLOOR.name):
        raise_floor(connection, NEEDED_REVISION)


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


def raise_floor(connection: Connection, revision: str) -> None:
    """Code that does not know this revision cannot work on the tables from now on."""
    connection.execute(update(SCHEMA_FLOOR).where(SCHEMA_FLOOR.c.revision < revision).values(revision=revision))


def _upgrade(connection: Connection, place: str, revision: str | None, oldest: str) -> None:
    from alembic import command  # noqa: PLC0415 - slow to load, and seldom needed
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", SCRIPT_LOCATION)
    scripts = ScriptDirectory.from_config(config)
    if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
        _refuse_unless_compatible(connection, place, revision)
        return
    target = _target(scripts, revision, oldest)
    if target is not None:
        config.attributes["connection"] = connection
        with _alembic:
            command.upgrade(config, target)


def _target(scripts: "ScriptDirectory", revision: str | None, oldest: str) -> str | None:
    """How far the tables may be changed: not beyond what the oldest of the other nodes can live with. None: not at all."""
    target = None
    for script in reversed(list(scripts.iterate_revisions("head", revision or "base"))):
        if getattr(script.module, "NEEDS", "") > oldest:
            break
        target = script.revision
    return target


def _refuse_unless_compatible(connection: Connection, place: str, revision: str) -> None:
    """A newer release has changed the tables. Unless it has taken away what this one needs, both may use them."""
    floor = ""
    if inspect(connection).has_table(SCHEMA_FLOOR.name):
        floor = str(connection.execute(select(func.max(SCHEMA_FLOOR.c.revision))).scalar_one())
    if not floor or floor > HEAD_REVISION:
        needed = f", and code that knows {floor}" if floor else ""
        raise JournalOpenError(
            place,
            expected=f"a schema of revision {HEAD_REVISION} or older, or one that code of that age can use",
            found=f"revision {revision}, which a newer coordinator must have written{needed}",
            to_do="start that version of the coordinator, or name another database",
        )
