"""Which sagas a process drives: those of the shards that it holds."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from coordinator.core.values import Instant, SagaId


class Place(NamedTuple):
    """Who drives a saga."""

    address: str
    """Where the API of that node is; empty: nobody drives it now."""
    is_here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStanding:
    """A process that takes part in a database."""

    id: str
    address: str
    host: str
    pid: int
    started_at: Instant | None
    """None: that is not known."""
    is_alive: bool
    is_cordoned: bool
    shards: tuple[int, ...]
    is_here: bool


class Shards(Protocol):
    """What a process holds changes as nodes come and go; with one process per database it never does."""

    def place_for(self, saga_id: SagaId, /) -> int | None:
        """The shard in which a new saga begins; None: none is held and open now."""

    @property
    def has_place(self) -> bool:
        """Whether new sagas can begin here."""

    def follow(self, taken: Callable[[frozenset[int]], None], /) -> None:
        """Calls back with the shards that are held now, and with others when they are taken. Called once."""

    def open(self, shard: int, /) -> None:
        """Whatever was left unfinished in a shard that was taken is taken up: new sagas may begin in it."""

    @property
    def count(self) -> int:
        """How many are held."""

    def holds(self, shard: int, /) -> bool:
        """Whether its sagas are driven here."""

    def is_current(self) -> bool:
        """Whether what is held is held at this very moment: only then is anything done for it (R31)."""

    def announce(self, address: str, /) -> None:
        """Tells other nodes where this one is reached."""

    async def owner_of(self, saga_id: SagaId, /) -> Place | None:
        """Who drives a saga; None if there is no such saga. Raises JournalUnavailableError."""

    @property
    def is_shared(self) -> bool:
        """Whether others use the same database."""

    async def nodes(self) -> Sequence[NodeStanding]:
        """Everybody who takes part, or has until lately, by their start. Raises JournalUnavailableError."""

    async def cordon(self, node_id: str, /, *, cordoned: bool) -> bool:
        """Says whether a node shall have no shards; False if there is no such node. Raises JournalUnavailableError."""


class OneShard:
    """Of a database that has one process."""

    def place_for(self, saga_id: SagaId, /) -> int | None:
        """That one."""
        return 0

    @property
    def has_place(self) -> bool:
        """Always."""
        return True

    def follow(self, taken: Callable[[frozenset[int]], None], /) -> None:
        """It is held from the beginning to the end."""
        taken(frozenset({0}))

    def open(self, shard: int, /) -> None:
        """It always is."""

    @property
    def count(self) -> int:
        """That one."""
        return 1

    def holds(self, shard: int, /) -> bool:
        """There is no other."""
        return True

    def is_current(self) -> bool:
        """Always."""
        return True

    def announce(self, address: str, /) -> None:
        """There are no others."""

    async def owner_of(self, saga_id: SagaId, /) -> Place | None:
        """All of them are driven here."""
        return _HERE

    @property
    def is_shared(self) -> bool:
        """It is not."""
        return False

    async def nodes(self) -> Sequence[NodeStanding]:
        """One, and its only shard."""
        here = NodeStanding(
            id="",
            address="",
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=None,
            is_alive=True,
            is_cordoned=False,
            shards=(0,),
            is_here=True,
        )
        return [here]

    async def cordon(self, node_id: str, /, *, cordoned: bool) -> bool:
        """There is nobody who could take its place."""
        return False


_HERE: Final = Place("", is_here=True)
ONE_SHARD: Final = OneShard()
