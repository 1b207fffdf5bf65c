"""What can go wrong with a journal, one class per reaction."""

from collections.abc import Collection

from coordinator.engine.ports import JournalUnavailableError


class JournalOpenError(Exception):
    """The journal cannot be opened. Nothing was changed; the message says what was expected, what was found, and what to do next."""

    def __init__(self, place: str, *, expected: str, found: str, to_do: str) -> None:
        super().__init__(f"cannot open the journal {place}: expected {expected}, found {found}; {to_do}")
        self.place = place
        self.expected = expected
        self.found = found
        self.to_do = to_do


class OwnershipLostError(Exception):
    """The database is not the one that was opened, or somebody else has written what was ours: nothing further may be announced (R32)."""


class ShardsLostError(Exception):
    """Somebody else writes these shards now. Nothing further of them may be announced (R26, R27)."""

    def __init__(self, shards: Collection[int], reason: str) -> None:
        super().__init__(reason)
        self.shards = frozenset(shards)


class DefectiveAppendError(Exception):
    """The database could take these rows, but they contradict what is in the journal (R28)."""


class DamagedReadError(JournalUnavailableError):
    """What was asked for stands in a part of the database that is damaged: waiting does not help."""
