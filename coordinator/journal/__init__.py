"""The append-only record of every saga: in SQL, where it survives everything but its disk, and in memory, for tests and simulation."""

from coordinator.journal.errors import JournalOpenError
from coordinator.journal.memory_database import MemoryDatabase
from coordinator.journal.memory_journal import MemoryJournal
from coordinator.journal.sql_journal import SqlJournal

__all__ = ["JournalOpenError", "MemoryDatabase", "MemoryJournal", "SqlJournal"]
