"""The file that a journal is kept in: which one a URL names, who owns it, and whether it is still the one that was opened.

The database file is never opened outside SQLite: closing any descriptor of it would release SQLite's own locks in this process. Ownership
is a lock on a file beside it (R32), so that a restart after a kill finds it free at once. That file also says that a journal was kept here,
and what was found wrong with it: a supervisor that starts the coordinator again must not make an empty journal in its place.
"""

import errno
import fcntl
import logging
import os
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from coordinator.journal.errors import JournalOpenError

_KEPT: Final = "a journal is kept here\n"
"""In the lock file, behind the process that has it; then comes what was found wrong."""
_NOTE_BYTES_MAX: Final = 4096

_logger = logging.getLogger(__name__)


class DatabaseFile:
    """One SQLite database file, owned by this process from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._log_identity: tuple[int, int] | None = None
        self._left: _Left | None = None
        self._log_path = path.with_name(path.name + "-wal")
        self._lock_path = path.with_name(path.name + ".lock")

    def acquire(self) -> None:
        """Takes the lock. Raises JournalOpenError if another process has it, if there can be none, and if what was kept here is not there
        any more or was found damaged.
        """
        assert self._lock_descriptor is None
        self._lock_descriptor = _lock(self.path, self._lock_path)
        note = os.pread(self._lock_descriptor, _NOTE_BYTES_MAX, 0).decode("utf-8", "replace")
        _, _, history = note.partition("\n")
        self._write_note(history)
        if history:
            self._refuse_loss(history.strip())

    def release(self) -> None:
        """Gives up the lock; harmless when that was done. The lock file stays: whoever removed it could remove another owner's."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def uri(self) -> str:
        """The URI to open it by. Only a file that was never opened before may be created: a deleted one must not come back empty."""
        mode = "rwc" if self._identity is None else "rw"
        return f"file:{quote(str(self.path))}?mode={mode}"

    def remember(self) -> None:
        """Takes note which file stands at the path, once SQLite has opened it."""
        if self._identity is None:
            self._identity = _identity_of(self.path.stat())

    def note_written(self) -> None:
        """Takes note how the files were left by the first write and every later one. Raises OSError if they are not there."""
        if self._left is None:
            self._write_note(_KEPT)
        log = self._log_path.stat()
        self._log_identity = _identity_of(log)
        self._left = _left_by(self.path.stat(), log)

    def forget_left(self) -> None:
        """The connection that writes is closed: the write-ahead log may go with it."""
        self._left = self._log_identity = None

    def is_as_left(self) -> bool:
        """Whether nobody has written to the files since; then they need no look. Raises OSError if they are not there."""
        return self._left is None or self._left == _left_by(self.path.stat(), self._log_path.stat())

    def has_shrunk(self) -> bool:
        """Whether the database is smaller than it was left: nothing that the journal does makes it smaller."""
        return self._left is not None and self.path.stat().st_size < self._left.size

    def why_gone(self) -> str | None:
        """Why the file at the path is no longer the one that was opened; None: it still is, or none was opened yet (R32)."""
        for what, path, expected in (("database", self.path, self._identity), ("write-ahead log", self._log_path, self._log_identity)):
            if expected is None:
                continue
            try:
                found = _identity_of(path.stat())
            except FileNotFoundError:
                return self.damage(f"the {what} {path} was deleted while it was in use")
            if found != expected:
                return self.damage(f"the {what} {path} was replaced by another while it was in use")
        return None

    def damage(self, what: str) -> str:
        """Keeps what was found for whoever starts the coordinator again; returns it, with what to do."""
        self._write_note(f"{_KEPT}{what}\n")
        return f"{what}; {self._to_do()}"

    def _refuse_loss(self, history: str) -> None:
        _, _, found = history.partition("\n")
        if not found and (not self.path.exists() or self.path.stat().st_size == 0):
            found = f"the database {self.path} is {'empty' if self.path.exists() else 'missing'}, and a journal was kept there"
        if found:
            self.release()
            raise JournalOpenError(str(self.path), expected="the journal that was kept here", found=found, to_do=self._to_do())

    def _to_do(self) -> str:
        return f"restore the database from a backup, or begin a new one; then delete {self._lock_path} and start again"

    def _write_note(self, history: str) -> None:
        if self._lock_descriptor is None:
            return
        try:
            os.pwrite(self._lock_descriptor, note := f"{os.getpid()}\n{history}".encode()[:_NOTE_BYTES_MAX], 0)
            os.ftruncate(self._lock_descriptor, len(note))
        except OSError as error:
            _logger.warning("the lock file cannot be written", extra={"path": str(self._lock_path), "error": str(error)})


class _Left(NamedTuple):
    """How the files were left. No more than is asked of the file system: it costs 2 µs a look."""

    size: int
    changed_at: int
    log_size: int
    log_changed_at: int


def _left_by(database: os.stat_result, log: os.stat_result) -> _Left:
    return _Left(database.st_size, database.st_mtime_ns, log.st_size, log.st_mtime_ns)


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def database_path(url: str) -> Path:
    """The file that a URL or plain path names, with symbolic links followed, so that one file has one lock.

    Raises JournalOpenError for anything but an SQLite file.
    """
    if "://" not in url and not url.startswith("sqlite:"):
        name: str | None = url
    else:
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise _no_url(url, "something that is no URL") from error
        if parsed.get_backend_name() != "sqlite":
            raise _no_url(url, f"a URL for {parsed.get_backend_name()}")
        if parsed.query:
            raise _no_url(url, "parameters behind a question mark, which are not used")
        name = parsed.database
    if not name or name == ":memory:" or name.startswith("file:"):
        raise _no_url(url, "a database in memory, which would not survive a restart")
    return Path(name).expanduser().resolve()


def _no_url(url: str, found: str) -> JournalOpenError:
    return JournalOpenError(
        url, expected="an SQLite file", found=found, to_do='name a file, like "saga.db" or "sqlite+aiosqlite:////var/lib/saga/saga.db"'
    )


def _lock(path: Path, lock_path: Path) -> int:
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").partition("\n")[0]
        os.close(descriptor)
        raise JournalOpenError(
            str(path),
            expected="a database that no other coordinator uses",
            found=f"it is in use by process {owner or 'unknown'}",
            to_do="stop that coordinator, or give this one a database of its own",
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise unusable(path, error) from error
    return descriptor


def unusable(path: Path, error: OSError) -> JournalOpenError:
    """What an error of the directory means to whoever starts the coordinator."""
    expected, to_do = _UNUSABLE.get(error.errno or 0, ("a directory in which files can be made", "check the directory"))
    return JournalOpenError(str(path), expected=expected, found=error.strerror or str(error), to_do=to_do)


_UNUSABLE: Final = {
    errno.ENOENT: ("a directory that exists", "create the directory, or name another file"),
    errno.ENOTDIR: ("a directory that exists", "name another file"),
    errno.EACCES: ("a directory that can be written", "grant write permission on the directory"),
    errno.EPERM: ("a directory that can be written", "grant write permission on the directory"),
    errno.EROFS: ("a file system that can be written", "mount it for writing, or name another file"),
    errno.ENOSPC: ("space on the disk", "free some space, then start again"),
}
