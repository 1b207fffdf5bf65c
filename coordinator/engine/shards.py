"""Which sagas a process drives: those of the shards that it holds."""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from coordinator.core.values import SagaId


class Place(NamedTuple):
    """Who drives a saga."""

    address: str
    """Where the API of that node is; empty: nobody drives it now."""
    is_here: bool


class Shards(Protocol):
    """What a process holds changes as nodes come and go; with one process per database it never does."""

    def place_for(self, saga_id: SagaId, /) -> int | None:
        """The shard in which a new saga begins; None: none is held and open now."""

    def follow(self, taken: Callable[[frozenset[int]], None], /) -> None:
        """Calls back with the shards that are held now, and with others when they are taken. Called once."""

    def open(self, shard: int, /) -> None:
        """Whatever was left unfinished in a shard that was taken is taken up: new sagas may begin in it."""

    def announce(self, address: str, /) -> None:
        """Tells other nodes where this one is reached."""

    async def owner_of(self, saga_id: SagaId, /) -> Place | None:
        """Who drives a saga; None if there is no such saga. Raises JournalUnavailableError."""

    @property
    def is_shared(self) -> bool:
        """Whether others use the same database."""


class OneShard:
    """Of a database that has one process."""

    def place_for(self, saga_id: SagaId, /) -> int | None:
        """That one."""
        return 0

    def follow(self, taken: Callable[[frozenset[int]], None], /) -> None:
        """It is held from the beginning to the end."""
        taken(frozenset({0}))

    def open(self, shard: int, /) -> None:
        """It always is."""

    def announce(self, address: str, /) -> None:
        """There are no others."""

    async def owner_of(self, saga_id: SagaId, /) -> Place | None:
        """All of them are driven here."""
        return _HERE

    @property
    def is_shared(self) -> bool:
        """It is not."""
        return False


_HERE: Final = Place("", is_here=True)
ONE_SHARD: Final = OneShard()
