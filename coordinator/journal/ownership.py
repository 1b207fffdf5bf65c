"""The shards that this process writes: the fence of every append (P6), and what becomes of it when a connection breaks (R26)."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from coordinator.journal.errors import ShardsLostError
from coordinator.journal.records import Record
from coordinator.journal.statements import Statements
from coordinator.journal.tables import SHARD


class Held(NamedTuple):
    """A shard that is ours."""

    epoch: int
    position: int
    """Of its last event."""
    since: int
    """The position at which it became ours."""


Positions = Mapping[int, int]
"""Position of the last event by shard."""


class Ownership:
    """What is held, as the database was told. Belongs to the writer alone."""

    def __init__(self, node_id: str, held: Mapping[int, Held]) -> None:
        self.node_id = node_id
        self._held = dict(held)

    @property
    def shards(self) -> Set[int]:
        """The shards that are held."""
        return self._held.keys()

    def find(self, shard: int) -> Held | None:
        """What is held of a shard; None: it is not ours."""
        return self._held.get(shard)

    def wrote(self, shard: int, position: int) -> bool:
        """Whether the event at that position is our own, written since the shard became ours."""
        held = self._held.get(shard)
        return held is not None and position > held.since

    def advance(self, connection: Connection, statements: Statements, records: Sequence[Record]) -> Positions:
        """The fence. It comes first, so that a process that lost a shard changes nothing else; therefore room is taken for every event of
        the batch, also for those of starts that will be dropped, and positions may leave numbers out. Raises ShardsLostError."""
        events: Counter[int] = Counter()
        for record in records:
            events[record.append.shard] += len(record.payloads)
        not_ours = events.keys() - self._held.keys()
        if not_ours:
            raise ShardsLostError(not_ours, f"shards {sorted(not_ours)} are not held by this process")
        positions = {shard: self._held[shard].position + count for shard, count in sorted(events.items())}
        rows = [(shard, self._held[shard].epoch, self._held[shard].position, position) for shard, position in positions.items()]
        if statements.advance_shards.count(connection, rows) != len(rows):
            raise self._error_of_lost(connection, positions)
        return positions

    def settle(self, positions: Positions) -> None:
        """What was advanced is committed."""
        for shard, position in positions.items():
            held = self._held.get(shard)
            if held is not None:  # else it was given up meanwhile
                self._held[shard] = held._replace(position=max(held.position, position))

    def happened(self, positions: Positions) -> bool | None:
        """Whether an advance whose COMMIT was in doubt has happened, seen after `reclaim`. None: all its shards are lost, and so it will
        never be known here."""
        known = [shard for shard in positions if shard in self._held]
        return any(self._held[shard].position == positions[shard] for shard in known) if known else None

    def check(self, connection: Connection) -> None:
        """Raises ShardsLostError if one of the shards is held by somebody else, or was written by somebody else."""
        lost = dict(self._find_lost(connection, {shard: held.position for shard, held in self._held.items()}))
        if lost:
            raise ShardsLostError(lost.keys(), "; ".join(lost.values()))

    def reclaim(self, connection: Connection, doubt: Positions) -> Mapping[int, Held]:
        """Ends whatever a connection that broke may still be about to do in our name, by a new epoch: a locking write, which waits for a
        COMMIT that is under way (R26). `doubt`: the positions that it may have reached. Returns what is ours still, for `replace` once
        this database transaction is committed.
        """
        kept: dict[int, Held] = {}
        for shard, epoch, position in connection.execute(_RECLAIM, {"node": self.node_id}):
            held = self._held.get(shard)
            if held is not None and epoch > held.epoch and position in {held.position, doubt.get(shard, held.position)}:
                kept[shard] = Held(epoch, position, held.since)
        return kept

    def replace(self, held: Mapping[int, Held]) -> None:
        """So much is ours now. `happened` then tells what became of what was in doubt."""
        self._held = dict(held)

    def adopt(self, held: Mapping[int, Held]) -> None:
        """These are ours from now on."""
        self._held |= held

    def drop(self, shards: Collection[int]) -> None:
        """They are not ours any more."""
        for shard in shards:
            self._held.pop(shard, None)

    def _error_of_lost(self, connection: Connection, positions: Positions) -> ShardsLostError:
        lost = dict(self._find_lost(connection, positions))
        words = "; ".join(lost.values()) or f"shards {sorted(positions)} cannot be advanced"
        return ShardsLostError(lost.keys() or positions.keys(), words)

    def _find_lost(self, connection: Connection, expected: Positions) -> Iterator[tuple[int, str]]:
        """Shards that are not where they should be by now, within this database transaction, and why."""
        rows = connection.execute(select(SHARD).where(SHARD.c.id.in_(list(expected)))).all()
        found = {row.id: row for row in rows}
        for shard, position in sorted(expected.items()):
            held, row = self._held.get(shard), found.get(shard)
            if held is None:
                yield shard, f"shard {shard} was given up meanwhile"
            elif row is None or (row.epoch, row.position) != (held.epoch, position):
                there = "found none" if row is None else f"found epoch {row.epoch} and position {row.position} of {row.owner or 'nobody'}"
                yield shard, f"shard {shard} was expected at epoch {held.epoch} and position {held.position}, {there}"


_RECLAIM: Final = (
    update(SHARD)
    .where(SHARD.c.owner == bindparam("node"))
    .values(epoch=SHARD.c.epoch + 1)
    .returning(SHARD.c.id, SHARD.c.epoch, SHARD.c.position)
)
