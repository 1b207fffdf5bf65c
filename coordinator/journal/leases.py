"""Holds the shards of this node for as long as their leases last, takes others, and gives up what others should have (R31).

A lease is renewed five times in its time. It counts from when its renewal was asked for, by this process's own clock: so a process that
was stopped, or that cannot reach the database, gives up its sagas before anybody else can take them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Final
from zlib import crc32

from coordinator.core.values import MICROS_PER_SECOND, Instant, SagaId
from coordinator.engine.pause import pause
from coordinator.engine.ports import Clock, JournalUnavailableError
from coordinator.engine.shards import NodeStanding, Place
from coordinator.journal.membership import SHARDS_ARE_FREE, Membership, Node
from coordinator.journal.ownership import Ownership

LEASE_US: Final = 5 * MICROS_PER_SECOND
"""How long the shards of a node that is gone stay its own."""
BEATS_PER_LEASE: Final = 5
"""How often a lease is renewed in its time."""
MARGIN: Final = 20
"""This part of a lease is not used: by so much may this process's clock be slower than that of the database."""
JUST_AFTER_US: Final = 10_000
"""After the end of another node's lease: so soon is it looked whether that was renewed."""

_logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Implements `Shards`. From `start` to `aclose` it has a coroutine of its own."""

    def __init__(
        self,
        *,
        node: Node,
        membership: Membership,
        ownership: Ownership,
        give_up: Callable[[frozenset[int], str], None],
        clock: Clock,
        lease_us: int = LEASE_US,
    ) -> None:
        """`give_up`: told of shards that are held no longer, and why. `lease_us`: how long shards stay those of a node that is gone."""
        self._node = node
        self._membership = membership
        self._ownership = ownership
        self._give_up = give_up
        self._clock = clock
        self._lease_us = lease_us
        self._open: list[int] = []
        self._taken: Callable[[frozenset[int]], None] = lambda _: None
        self._runner: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._cancel_expiry: Callable[[], None] = lambda: None
        self._is_failing = False
        self._current_until = Instant(0)
        self._next_beat_us = lease_us // BEATS_PER_LEASE

    # ── Shards ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def place_for(self, saga_id: SagaId, /) -> int | None:
        """One of the open ones, whichever the id falls on."""
        return self._open[crc32(saga_id.encode()) % len(self._open)] if self._open else None

    @property
    def has_place(self) -> bool:
        """Whether a shard is open."""
        return bool(self._open)

    def follow(self, taken: Callable[[frozenset[int]], None], /) -> None:
        """Says what is held now, and what is taken later."""
        self._taken = taken
        taken(frozenset(self._ownership.shards))

    def open(self, shard: int, /) -> None:
        """New sagas may begin in it."""
        if shard in self._ownership.shards and shard not in self._open:
            self._open = sorted({*self._open, shard})

    @property
    def count(self) -> int:
        """How many were taken, and not given up since."""
        return len(self._ownership.shards)

    def holds(self, shard: int, /) -> bool:
        """Whether it was taken, and not given up since."""
        return shard in self._ownership.shards

    def is_current(self) -> bool:
        """Whether the leases have not ended, by this process's own clock: only then may it do anything for its sagas (R31)."""
        return self._clock.now() < self._current_until

    def announce(self, address: str, /) -> None:
        """Others are told with the next beat, which comes at once."""
        self._node = replace(self._node, address=address)
        self._wake.set()

    async def owner_of(self, saga_id: SagaId, /) -> Place | None:
        """As the database says. Raises JournalUnavailableError."""
        found = await self._membership.find_owner(saga_id)
        return None if found is None else Place(found.address, is_here=found.node_id == self._node.id)

    @property
    def is_shared(self) -> bool:
        """It is."""
        return True

    async def nodes(self) -> Sequence[NodeStanding]:
        """As the database knows them. Raises JournalUnavailableError."""
        return [
            NodeStanding(
                id=listed.node.id,
                address=listed.node.address,
                host=listed.node.host,
                pid=listed.node.pid,
                started_at=Instant(listed.started_at),
                is_alive=listed.is_alive,
                is_cordoned=listed.is_cordoned,
                shards=listed.shards,
                is_here=listed.node.id == self._node.id,
            )
            for listed in await self._membership.list_nodes()
        ]

    async def cordon(self, node_id: str, /, *, cordoned: bool) -> bool:
        """Takes effect within a fifth of a lease. Raises JournalUnavailableError."""
        return await self._membership.cordon(node_id, cordoned=cordoned)

    def hear(self, word: str, /) -> None:
        """Another node hints at shards that are free: they are taken at once if they should be ours."""
        if word == SHARDS_ARE_FREE:
            self._wake.set()

    # ── Life ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Takes what is free, and keeps it from now on. Raises JournalUnavailableError."""
        await self._beat()
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="leases")

    def abandon(self) -> "asyncio.Task[None] | None":
        """Does nothing any more, as if the process had ended: what is held stays so until its leases end. Returns what is just ending."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
        self._cancel_expiry()
        self._open = []
        return runner

    async def aclose(self) -> None:
        """Gives up everything, so that others need not wait for the end of the leases; to be called when nothing is written any more."""
        runner = self.abandon()
        if runner is not None:
            await asyncio.wait((runner,))
        try:
            await self._membership.leave(self._node)
        except JournalUnavailableError as error:
            _logger.warning("the leases are left to end by themselves", extra={"reason": str(error)})

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await pause(self._clock, self._next_beat_us, self._wake)
            try:
                await self._beat()
            except JournalUnavailableError as error:
                if not self._is_failing:
                    _logger.warning("leases cannot be renewed; trying again", extra={"reason": str(error)})
                self._is_failing = True
            except Exception:  # a defect: what is held is given up when its leases end, and this goes on trying
                _logger.exception("leases cannot be renewed")
            else:
                self._is_failing = False

    async def _beat(self) -> None:
        asked_at = self._clock.now()
        if asked_at >= self._current_until:
            self._expire()  # before its timer, which may come late in a process that was stopped
        beat = await self._membership.beat(self._node, lease_us=self._lease_us)
        if self._clock.now() >= self._current_until:
            self._expire()
        self._cancel_expiry()
        self._current_until = Instant(asked_at + self._lease_us - self._lease_us // MARGIN)
        self._cancel_expiry = self._clock.call_at(self._current_until, self._expire)
        usual_us = self._lease_us // BEATS_PER_LEASE
        # Where another one does not renew its lease, this node is there when it ends.
        self._next_beat_us = usual_us if beat.next_end_us is None else min(usual_us, beat.next_end_us + JUST_AFTER_US)
        lost = self._ownership.shards - beat.held.keys()
        if lost:
            self._let_go(lost, "another node holds them now")
        new = {shard: held for shard, held in beat.held.items() if shard not in self._ownership.shards}
        if new:
            _logger.info("shards are held", extra={"taken": sorted(new), "held": len(beat.held)})
            self._ownership.adopt(new)
            self._taken(frozenset(new))
        if beat.surplus:
            await self._hand_over(beat.surplus)

    async def _hand_over(self, count: int) -> None:
        shards = frozenset(sorted(self._ownership.shards)[-count:])
        self._let_go(shards, "they are handed over to another node")
        await self._membership.give_up(self._node, shards)

    def _expire(self) -> None:
        """Nobody has renewed them in time. Others may hold them by now."""
        if self._ownership.shards:
            self._let_go(self._ownership.shards, "their leases have ended, and could not be renewed")

    def _let_go(self, shards: Set[int], reason: str) -> None:
        gone = frozenset(shards)
        self._open = [shard for shard in self._open if shard not in gone]
        self._ownership.drop(gone)
        self._give_up(gone, f"shards {sorted(gone)}: {reason}")
