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
_OWNER_CHARS: Final = 10
"""All owners are written equally long: what follows stays where it is, so that a process killed while it writes leaves nothing half."""

_logger = logging.getLogger(__name__)


class DatabaseFile:
    """One SQLite database file, owned by this process from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log_path = path.with_name(path.name + "-wal")
        self._lock_path = path.with_name(path.name + ".lock")
        self._lock_descriptor: int | None = None
        self._identity: _Identity | None = None
        self._left: Look | None = None
        self._is_kept = False

    # ── Ownership ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def acquire(self) -> None:
        """Takes the lock. Raises JournalOpenError if another process has it, if there can be none, and if what was kept here is not there
        any more or was found damaged.
        """
        assert self._lock_descriptor is None
        self._lock_descriptor = _lock(self.path, self._lock_path)
        note = os.pread(self._lock_descriptor, _NOTE_BYTES_MAX, 0).decode("utf-8", "replace")
        _, _, history = note.partition("\n")
        self._write_note(history)
        self._is_kept = bool(history)
        if self._is_kept:
            self._refuse_loss(history.removeprefix(_KEPT).strip())

    def release(self) -> None:
        """Gives up the lock; harmless when that was done. The lock file stays: whoever removed it could remove another owner's."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def note_kept(self) -> None:
        """From now on nothing may begin anew here without a person who says so."""
        if not self._is_kept:
            self._write_note(_KEPT)
            self._is_kept = True

    def note_damage(self, what: str) -> str:
        """Keeps what was found for whoever starts the coordinator again; returns it, with what to do."""
        self._write_note(f"{_KEPT}{what}\n")
        return f"{what}; {self._to_do()}"

    def _refuse_loss(self, found: str) -> None:
        if not found and (not self.path.exists() or self.path.stat().st_size == 0):
            found = f"the database {self.path} is {'empty' if self.path.exists() else 'missing'}, and a journal was kept there"
        if found:
            self.release()
            raise JournalOpenError(str(self.path), expected="the journal that was kept here", found=found, to_do=self._to_do())

    def _to_do(self) -> str:
        name = self.path.name
        return (
            f"move {name}, {name}-wal and {name}-shm away, put a backup in their place or nothing to begin anew, "
            f"then delete {self._lock_path} and start again"
        )

    def _write_note(self, history: str) -> None:
        if self._lock_descriptor is None:
            return
        note = f"{os.getpid():{_OWNER_CHARS}}\n{history}".encode()[:_NOTE_BYTES_MAX]
        try:
            os.pwrite(self._lock_descriptor, note, 0)
            os.ftruncate(self._lock_descriptor, len(note))
        except OSError as error:
            _logger.warning("the lock file cannot be written", extra={"path": str(self._lock_path), "error": str(error)})

    # ── Whether it is still what it was ─────────────────────────────────────────────────────────────────────────────────────────

    def uri(self) -> str:
        """The URI to open it by. Only a file that was never opened before may be created: a deleted one must not come back empty."""
        mode = "rwc" if self._identity is None else "rw"
        return f"file:{quote(str(self.path))}?mode={mode}"

    def remember(self) -> None:
        """Takes note which file stands at the path, once SQLite has opened it."""
        if self._identity is None:
            self._identity = _seen(self.path).identity

    def why_gone(self) -> str | None:
        """Why the file at the path is no longer the one that was opened; None: it still is, or none was opened yet (R32)."""
        if self._identity is None:
            return None
        gone = _why_gone("database", self.path, self._identity)
        if gone is None and _seen(self.path).size == 0:
            return f"the database {self.path} was emptied while it was in use"
        return gone

    def why_log_gone(self) -> str | None:
        """The same of the write-ahead log. What was committed last stands only there. For the thread that writes."""
        return None if self._left is None else _why_gone("write-ahead log", self._log_path, self._left.log.identity)

    def look(self) -> "Look":
        """Raises FileNotFoundError if one of the files is not there."""
        return Look(_seen(self.path), _seen(self._log_path))

    def note_written(self, look: "Look") -> None:
        """Takes note how the files were left by a write."""
        self.note_kept()
        self._left = look

    def forget_written(self) -> None:
        """The connection that writes is about to be closed: the write-ahead log may go with it."""
        self._left = None

    def is_as_left(self) -> bool:
        """Whether nobody has written to the files since the last write; then they need no reading."""
        try:
            return self._left is None or self._left == self.look()
        except FileNotFoundError:
            return False

    def is_plausible(self, look: "Look") -> bool:
        """Whether a write of this process may have left them so: in the same files, and a database no smaller than before."""
        database, log = look
        if database.identity != self._identity or database.size == 0:
            return False
        return self._left is None or (log.identity == self._left.log.identity and database.size >= self._left.database.size)


class _Identity(NamedTuple):
    device: int
    inode: int


class _Seen(NamedTuple):
    """What tells that a file was written, without reading it."""

    identity: _Identity
    size: int
    changed_at: int


class Look(NamedTuple):
    """How the files are. Two calls of the file system: before every write and after it, 20 µs together."""

    database: _Seen
    log: _Seen


def _seen(path: Path) -> _Seen:
    status = os.stat(path)  # noqa: PTH116 - before every commit: half the price of Path.stat
    return _Seen(_Identity(status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns)


def _why_gone(what: str, path: Path, expected: _Identity) -> str | None:
    try:
        found = _seen(path).identity
    except FileNotFoundError:
        return f"the {what} {path} was deleted while it was in use"
    return None if found == expected else f"the {what} {path} was replaced by another while it was in use"


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
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").partition("\n")[0].strip()
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
