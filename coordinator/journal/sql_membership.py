"""Who owns which shard, in the database that nodes share: pure statements, each function within one database transaction.

All times are those of the database, in microseconds, so that the clocks of the nodes decide nothing (R31).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from coordinator.core.values import SagaId
from coordinator.engine.ports import JournalUnavailableError
from coordinator.journal.hosts import Host
from coordinator.journal.membership import SHARDS, SHARDS_ARE_FREE, Beat, Listed, Node, Owner, share_of
from coordinator.journal.ownership import Held
from coordinator.journal.reader import Reader
from coordinator.journal.schema import HEAD_REVISION
from coordinator.journal.signals import notify
from coordinator.journal.store import DATABASE_ERRORS, words_of
from coordinator.journal.tables import NODE, SAGA, SHARD

ResultT = TypeVar("ResultT")

REVISION_BEFORE_NODES_SAID: Final = "0003"
"""What nodes know that do not say it."""
NODES_KEPT_US: Final = 3_600_000_000
"""How long a node that is gone is still listed."""


class SqlMembership:
    """Implements `Membership` on connections of its own."""

    def __init__(self, engine: Engine, host: Host, reader: Reader) -> None:
        self._engine = engine
        self._host = host
        self._reader = reader

    async def beat(self, node: Node, /, *, lease_us: int) -> Beat:
        return await self._write(partial(_beat, node=node, lease_us=lease_us))

    async def give_up(self, node: Node, shards: Collection[int], /) -> None:
        await self._write(partial(_give_up, node=node, shards=shards))

    async def leave(self, node: Node, /) -> None:
        await self._write(partial(_leave, node=node))

    async def find_owner(self, saga_id: SagaId, /) -> Owner | None:
        return await self._reader.read(partial(_find_owner, saga_id=saga_id))

    async def list_nodes(self) -> Sequence[Listed]:
        return await self._reader.read(_list_nodes)

    async def cordon(self, node_id: str, /, *, cordoned: bool) -> bool:
        return await self._write(partial(_cordon, node_id=node_id, cordoned=cordoned))

    async def _write(self, work: Callable[[Connection], ResultT]) -> ResultT:
        try:
            return await self._host.run(partial(self._within, work))
        except DATABASE_ERRORS as error:
            raise JournalUnavailableError(f"the database cannot be written now: {words_of(error)}") from error

    def _within(self, work: Callable[[Connection], ResultT]) -> ResultT:
        with self._engine.connect() as connection, connection.begin():
            return work(connection)


def known_by_nodes(connection: Connection) -> list[str]:
    """The newest revision of the tables that each node knows that is alive. In tables of any revision."""
    inspected = inspect(connection)
    columns = {str(found["name"]) for found in inspected.get_columns(NODE.name)} if inspected.has_table(NODE.name) else set()
    if "lease_until" not in columns:
        return []  # of a release that did not share its database
    known = NODE.c.knows if "knows" in columns else literal(None)
    return [found or REVISION_BEFORE_NODES_SAID for (found,) in connection.execute(select(known).where(NODE.c.lease_until > _NOW))]


def make_shards(connection: Connection) -> None:
    """The rows of a new database."""
    if connection.execute(select(func.count()).select_from(SHARD)).scalar_one() == 0:
        connection.execute(insert(SHARD), [{"id": shard, "epoch": 0, "position": 0} for shard in range(SHARDS)])


def _beat(connection: Connection, node: Node, *, lease_us: int) -> Beat:
    """Says that this node is alive, renews its leases, and takes what it should have and nobody holds."""
    now = int(connection.execute(select(_NOW)).scalar_one())
    is_cordoned = _announce(connection, node, now, now + lease_us)
    renewed = connection.execute(_RENEW, {"node": node.id, "until": now + lease_us}).all()
    held = {row.id: Held(row.epoch, row.position, row.position) for row in renewed}
    share = 0 if is_cordoned else _share(connection, node, now)
    if len(held) < share:
        for row in _take(connection, node, now, lease_us, share - len(held)):
            held[row.id] = Held(row.epoch, row.position, row.position)
    ends_at = connection.execute(select(func.min(SHARD.c.lease_until)).where(SHARD.c.owner != node.id)).scalar_one_or_none()
    return Beat(held, surplus=max(0, len(held) - share), next_end_us=None if ends_at is None else max(0, ends_at - now))


def _give_up(connection: Connection, node: Node, shards: Collection[int]) -> None:
    """They are free for others at once, and nothing that is still on its way from this node can write them."""
    mine = and_(SHARD.c.owner == node.id, SHARD.c.id.in_(list(shards)))
    connection.execute(update(SHARD).where(mine).values(owner=None, lease_until=None, epoch=SHARD.c.epoch + 1))
    notify(connection, node.id, [SHARDS_ARE_FREE])


def _leave(connection: Connection, node: Node) -> None:
    """Gives up all that this node holds, and takes it from the list."""
    connection.execute(update(SHARD).where(SHARD.c.owner == node.id).values(owner=None, lease_until=None, epoch=SHARD.c.epoch + 1))
    connection.execute(delete(NODE).where(NODE.c.id == node.id))
    notify(connection, node.id, [SHARDS_ARE_FREE])


def _find_owner(connection: Connection, saga_id: str) -> Owner | None:
    """The node that holds the shard of a saga, and whose lease has not ended; None if there is no such saga."""
    held = and_(SHARD.c.id == SAGA.c.shard, SHARD.c.lease_until > _NOW)
    joined = SAGA.outerjoin(SHARD, held).outerjoin(NODE, NODE.c.id == SHARD.c.owner)
    row = connection.execute(select(SHARD.c.owner, NODE.c.address).select_from(joined).where(SAGA.c.saga_id == saga_id)).one_or_none()
    return None if row is None else Owner(row.owner or "", row.address or "")


def _list_nodes(connection: Connection) -> list[Listed]:
    """By their start."""
    held: defaultdict[str, list[int]] = defaultdict(list)
    for shard, owner in connection.execute(select(SHARD.c.id, SHARD.c.owner).where(SHARD.c.owner.is_not(None)).order_by(SHARD.c.id)):
        held[str(owner)].append(int(shard))
    rows = connection.execute(select(*NODE.c, (NODE.c.lease_until > _NOW).label("is_alive")).order_by(NODE.c.started_at)).all()
    return [
        Listed(
            node=Node(id=row.id, address=row.address, host=row.host, pid=row.pid),
            started_at=row.started_at,
            is_alive=bool(row.is_alive),
            is_cordoned=row.cordoned,
            shards=tuple(held[row.id]),
        )
        for row in rows
    ]


def _cordon(connection: Connection, node_id: str, *, cordoned: bool) -> bool:
    """Takes effect with the next beat of the node; False if there is no such node."""
    return connection.execute(update(NODE).where(NODE.c.id == node_id).values(cordoned=cordoned)).rowcount == 1


def _announce(connection: Connection, node: Node, now: int, until: int) -> bool:
    """Whether a person has cordoned it."""
    made = postgresql.insert(NODE).values(
        id=node.id, host=node.host, pid=node.pid, started_at=now, address=node.address, lease_until=until, knows=HEAD_REVISION
    )
    kept = made.on_conflict_do_update(index_elements=[NODE.c.id], set_={"lease_until": until, "address": node.address})
    connection.execute(delete(NODE).where(NODE.c.lease_until < now - NODES_KEPT_US))
    return bool(connection.execute(kept.returning(NODE.c.cordoned)).scalar_one())


def _share(connection: Connection, node: Node, now: int) -> int:
    alive = and_(NODE.c.lease_until > now, ~NODE.c.cordoned)
    nodes = [str(found) for (found,) in connection.execute(select(NODE.c.id).where(alive))]
    return share_of(node.id, nodes, int(connection.execute(select(func.count()).select_from(SHARD)).scalar_one()))


def _take(connection: Connection, node: Node, now: int, lease_us: int, limit: int) -> list[Row[*tuple[int, ...]]]:
    """Free ones, and those whose lease has ended. Others that take at the same moment are passed over and not waited for (R31)."""
    free = or_(SHARD.c.owner.is_(None), SHARD.c.lease_until < now)
    found = select(SHARD.c.id).where(free).order_by(SHARD.c.id).limit(limit).with_for_update(skip_locked=True)
    taken = (
        update(SHARD)
        .where(SHARD.c.id.in_(found.scalar_subquery()))
        .values(owner=node.id, lease_until=now + lease_us, epoch=SHARD.c.epoch + 1)
        .returning(SHARD.c.id, SHARD.c.epoch, SHARD.c.position)
    )
    return list(connection.execute(taken).all())


_NOW: Final[ColumnElement[int]] = literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
_RENEW: Final = (
    update(SHARD)
    .where(SHARD.c.owner == bindparam("node"))
    .values(lease_until=bindparam("until"))
    .returning(SHARD.c.id, SHARD.c.epoch, SHARD.c.position)
)
