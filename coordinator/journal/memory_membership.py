"""What nodes tell each other through a database in memory, by the same rules as in SQL."""

from collections.abc import Callable, Collection, Sequence

from coordinator.core.values import SagaId
from coordinator.journal.membership import Beat, Listed, Node, Owner, share_of
from coordinator.journal.memory_database import MemoryDatabase, NodeRow, ShardRow
from coordinator.journal.ownership import Held


class MemoryMembership:
    """Implements `Membership`."""

    def __init__(self, database: MemoryDatabase, now: Callable[[], int]) -> None:
        """`now`: the clock of the database, in microseconds."""
        self._database = database
        self._now = now

    async def beat(self, node: Node, /, *, lease_us: int) -> Beat:
        now, database = self._now(), self._database
        row = database.nodes.setdefault(node.id, NodeRow(node=node, started_at=now))
        row.node, row.lease_until = node, now + lease_us
        mine = {shard: found for shard, found in database.shards.items() if found.owner == node.id}
        for found in mine.values():
            found.lease_until = now + lease_us
        alive = [each.node.id for each in database.nodes.values() if each.lease_until > now and not each.is_cordoned]
        share = 0 if row.is_cordoned else share_of(node.id, alive, len(database.shards))
        free = [shard for shard, found in sorted(database.shards.items()) if not found.owner or found.lease_until < now]
        for shard in free[: max(0, share - len(mine))]:
            database.take(shard, node.id, until=now + lease_us)
            mine[shard] = database.shards[shard]
        ends = [found.lease_until - now for found in database.shards.values() if found.owner not in ("", node.id)]
        held = {shard: _held(found) for shard, found in mine.items()}
        return Beat(held, surplus=max(0, len(held) - share), next_end_us=max(0, min(ends)) if ends else None)

    async def give_up(self, node: Node, shards: Collection[int], /) -> None:
        for shard in shards:
            if self._database.shards[shard].owner == node.id:
                self._database.take(shard, "")

    async def leave(self, node: Node, /) -> None:
        await self.give_up(node, self._database.shards)
        self._database.nodes.pop(node.id, None)

    async def find_owner(self, saga_id: SagaId, /) -> Owner | None:
        saga = self._database.sagas.get(saga_id)
        if saga is None:
            return None
        shard = self._database.shards[saga.shard]
        row = self._database.nodes.get(shard.owner)
        return Owner("", "") if row is None or shard.lease_until <= self._now() else Owner(row.node.id, row.node.address)

    async def list_nodes(self) -> Sequence[Listed]:
        now, shards = self._now(), self._database.shards
        return [
            Listed(
                node=row.node,
                started_at=row.started_at,
                is_alive=row.lease_until > now,
                is_cordoned=row.is_cordoned,
                shards=tuple(shard for shard, found in sorted(shards.items()) if found.owner == node_id),
            )
            for node_id, row in self._database.nodes.items()
        ]

    async def cordon(self, node_id: str, /, *, cordoned: bool) -> bool:
        row = self._database.nodes.get(node_id)
        if row is not None:
            row.is_cordoned = cordoned
        return row is not None


def _held(row: ShardRow) -> Held:
    return Held(row.epoch, row.position, since=row.position)
