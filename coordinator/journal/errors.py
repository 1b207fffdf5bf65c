"""What can go wrong with a journal, one class per reaction."""

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
    """Somebody else writes this shard, or the database is not the one that was opened. Nothing further may be announced (R26, R27, R32)."""


class DefectiveAppendError(Exception):
    """The database could take these rows, but they contradict what is in the journal (R28)."""


class DamagedReadError(JournalUnavailableError):
    """What was asked for stands in a part of the database that is damaged: waiting does not help."""
