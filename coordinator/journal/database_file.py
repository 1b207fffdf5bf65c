"""The file that a journal is kept in: which one a URL names, who owns it, and whether it is still the one that was opened.

The database file is never opened outside SQLite: closing any descriptor of it would release SQLite's own locks in this process. Ownership
is a lock on a file beside it (R32), so that a restart after a kill finds it free at once.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from coordinator.journal.errors import JournalOpenError


class DatabaseFile:
    """One SQLite database file, owned by this process from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Takes the lock. Raises JournalOpenError if another process has it, or if there can be none."""
        assert self._lock_descriptor is None
        self._lock_descriptor = _lock(self.path)

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
            self._identity = self._found()

    def why_gone(self) -> str | None:
        """Why the file at the path is no longer the one that was opened; None: it still is, or none was opened yet (R32)."""
        if self._identity is None:
            return None
        try:
            found = self._found()
        except FileNotFoundError:
            return f"the database file {self.path} was deleted while it was in use"
        if found != self._identity:
            return f"the database file {self.path} was replaced by another while it was in use"
        return None

    def _found(self) -> tuple[int, int]:
        status = self.path.stat()
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


def _lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
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
