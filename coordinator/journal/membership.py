"""How processes that share a database agree who owns which shard: what one of them needs of that database."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from coordinator.core.values import SagaId
from coordinator.journal.ownership import Held

SHARDS: Final = 16
"""Of a new database. More nodes than shards are of no use."""


SHARDS_ARE_FREE: Final = "shards"
"""What a node hints at when it gives up shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A process that shares the database."""

    id: str
    address: str
    """Where other nodes reach its API."""
    host: str
    pid: int


class Beat(NamedTuple):
    """What a node was told when it renewed its leases."""

    held: Mapping[int, Held]
    """Its shards, those that it has just taken among them."""
    surplus: int
    """How many of them others should have."""
    next_end_us: int | None
    """When the next lease of another node ends, unless that renews it; None: no other has any."""


class Owner(NamedTuple):
    """Who drives a saga."""

    node_id: str
    """Empty: nobody."""
    address: str


class Listed(NamedTuple):
    """A node as others see it."""

    node: Node
    started_at: int
    is_alive: bool
    is_cordoned: bool
    shards: tuple[int, ...]


class Membership(Protocol):
    """All times are those of the database, so that the clocks of the nodes decide nothing (R31). Every method raises
    JournalUnavailableError if the database cannot be reached now."""

    async def beat(self, node: Node, /, *, lease_us: int) -> Beat:
        """Says that this node is alive, renews its leases, and takes what it should have and nobody holds."""

    async def give_up(self, node: Node, shards: Collection[int], /) -> None:
        """They are free for others at once, and nothing that is still on its way from this node can write them."""

    async def leave(self, node: Node, /) -> None:
        """Gives up all that this node holds, and takes it from the list."""

    async def find_owner(self, saga_id: SagaId, /) -> Owner | None:
        """The node that holds the shard of a saga, and whose lease has not ended; None if there is no such saga."""

    async def list_nodes(self) -> Sequence[Listed]:
        """By their start."""

    async def cordon(self, node_id: str, /, *, cordoned: bool) -> bool:
        """Takes effect with the next beat of the node; False if there is no such node."""


def share_of(node_id: str, alive: Collection[str], shards: int) -> int:
    """How many shards a node should have, spread evenly over those that are alive and not cordoned: the first of them, by their ids, have
    one more where it does not come out even."""
    each, rest = divmod(shards, max(1, len(alive)))
    return each + (node_id in sorted(alive)[:rest])
