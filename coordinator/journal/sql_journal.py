"""The journal in SQL, behind the port of the engine: in an SQLite file of its own, or in a PostgreSQL database that nodes share."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from coordinator.core.values import Code, DefinitionKey, Failure, Instant, SagaId
from coordinator.engine.hints import Signals, Silence
from coordinator.engine.ports import (
    Append,
    Clock,
    Forgotten,
    IncidentFilter,
    JournalFigures,
    JournalListener,
    JournalUnavailableError,
    SagaFilter,
    StoredDefinition,
    StoredIncident,
    StoredParticipant,
    StoredSaga,
)
from coordinator.engine.shards import ONE_SHARD, Shards
from coordinator.journal import forgetting, listings, queries, side_writes
from coordinator.journal.commit_loop import CommitLoop
from coordinator.journal.database_file import database_path
from coordinator.journal.errors import DamagedReadError
from coordinator.journal.hosts import Greenlets
from coordinator.journal.leases import LEASE_US, LeaseKeeper
from coordinator.journal.membership import Node
from coordinator.journal.opening import Opened, open_postgres, open_sqlite, this_node
from coordinator.journal.postgres import open_error, server_url
from coordinator.journal.signals import PostgresSignals
from coordinator.journal.sql_membership import SqlMembership
from coordinator.journal.sqlite import Connect, connect

_logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How a process takes part in a database that several share."""

    address: str = ""
    """Where other nodes reach its API."""
    lease_us: int = LEASE_US
    """How long its shards stay its own when it is gone."""


ALONE: Final = NodeOptions()


class SqlJournal:
    """Implements `Journal`. Made by `open`, ended by `aclose` or at the end of `async with`.

    One connection writes and a few read, where they do not block the loop. A saga that cannot be read or written is set aside alone.
    """

    shards: Shards
    """What this process holds of the database."""
    signals: Signals
    """What it hears of others that use the database."""

    def __init__(self, opened: Opened, clock: Clock) -> None:
        self._opened = opened
        self._ownership = opened.writer.ownership
        self._clock = clock
        self._commits = CommitLoop(writer=opened.writer, host=opened.writer_host, clock=clock)
        self._is_closed = False
        self._leases: LeaseKeeper | None = None
        self._signals: PostgresSignals | None = None
        self.shards = ONE_SHARD
        self.signals = Silence()

    @classmethod
    async def open(
        cls, url: str, *, clock: Clock, listener: JournalListener | None = None, connect: Connect = connect, options: NodeOptions = ALONE
    ) -> Self:
        """Opens the journal of a URL or path ("sqlite+aiosqlite:///saga.db", "/var/lib/saga/saga.db", "postgresql+asyncpg://host/saga"),
        and makes or migrates its tables. An SQLite file belongs to this process until it is closed; in
        PostgreSQL it takes part as one node.

        `listener` may be given here or to `listen`, but before the first append. `connect` is for tests: it opens the connections.
        Raises JournalOpenError, which says what was expected, what was found, and what to do.
        """
        server = server_url(url)
        if server is None:
            journal = cls(await open_sqlite(database_path(url), clock.now(), connect), clock)
        else:
            node = this_node(options.address)
            journal = cls(await open_postgres(server, node), clock)
            await journal._take_part(node, options, listener)
            return journal
        if listener is not None:
            journal.listen(listener)
        journal._commits.start()
        return journal

    async def _take_part(self, node: Node, options: NodeOptions, listener: JournalListener | None) -> None:
        opened = self._opened
        assert opened.lease_engine is not None
        assert opened.signal_engine is not None
        self._signals = self.signals = PostgresSignals(opened.signal_engine, Greenlets(), self._clock, node.id)
        self._leases = self.shards = LeaseKeeper(
            node=node,
            membership=SqlMembership(opened.lease_engine, opened.writer_host, opened.reader),
            ownership=self._ownership,
            give_up=self._commits.give_up,
            clock=self._clock,
            lease_us=options.lease_us,
        )
        self._signals.follow(self._leases.hear)
        if listener is not None:
            self.listen(listener)
        try:
            await self._leases.start()
        except JournalUnavailableError as error:
            await self.aclose()
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise open_error(opened.lease_engine.url.render_as_string(hide_password=True), cause) from error
        self._signals.start()
        self._commits.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Commits what is queued if the database takes it now, and gives the database back. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        opened = self._opened
        try:
            is_at_rest = await self._commits.close()
        finally:
            await opened.reader.aclose()
        if not is_at_rest:
            opened.writer_host.abandon()
            return  # the lock goes with the process: until then the commit that hangs may still happen
        if self._signals is not None:
            await self._signals.aclose()
        if self._leases is not None:
            await self._leases.aclose()
        await opened.writer_host.finish(self._release)

    def _release(self) -> None:
        self._opened.writer.close()
        self._opened.release()

    # ── Appends ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def listen(self, listener: JournalListener) -> None:
        """Names who is told what became of appends. Once, before the first append."""
        self._commits.listen(listener)

    def append(self, batch: Sequence[Append], /) -> None:
        """Queues appends. What is queued is bounded by whoever appends: `stalled_for_us` tells when to take nothing new on."""
        self._commits.append(batch)

    @property
    def stalled_for_us(self) -> int:
        """How long the oldest queued append has been failing, or its commit has hung; 0 while all is well."""
        return self._commits.stalled_for_us

    @property
    def figures(self) -> JournalFigures:
        """What it has done since it was opened."""
        return self._commits.figures

    # ── Sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def quarantine(self, saga_id: SagaId, failure: Failure, /) -> None:
        """Sets a saga aside with an incident, after what was appended before. Waits for a database that is away."""
        set_aside = partial(side_writes.quarantine, saga_id=saga_id, failure=failure, now=self._clock.now())
        if not await self._commits.write_beside(set_aside, is_repeated=True):
            _logger.warning("no saga to set aside", extra={"saga.id": saga_id, "reason": failure.message})

    async def load_awake(self, after: SagaId | None, limit: int, /, *, shard: int = 0) -> Sequence[StoredSaga]:
        """A page of the sagas that can move by themselves and do not sleep; fewer than `limit` only at the end, also when some were set
        aside."""
        found: list[StoredSaga] = []
        while len(found) < limit:
            page = await self._read(
                partial(queries.load_awake, shard=shard, after=after, limit=limit - len(found), wrote=self._ownership.wrote)
            )
            found += await self._sound(page)
            after = page.last
            if after is None:
                break
        return found

    async def find_asleep(
        self, since: Instant, until: Instant, after: tuple[Instant, SagaId] | None, limit: int, /, *, shard: int = 0
    ) -> Sequence[tuple[Instant, SagaId]]:
        """Sagas of a shard that sleep until an instant in [since, until), by that and their id, strictly after the cursor."""
        return await self._read(partial(queries.find_asleep, shard=shard, since=since, until=until, after=after, limit=limit))

    async def load(self, ids: Sequence[SagaId], /) -> Sequence[StoredSaga]:
        """These sagas with their events, by id, as far as they are there and not set aside."""
        return await self._sound(await self._read(partial(queries.load, ids=ids, wrote=self._ownership.wrote)))

    async def _sound(self, page: queries.Page) -> Sequence[StoredSaga]:
        for saga_id, error in page.corrupt:
            _logger.error("saga set aside: its events cannot be read", extra={"saga.id": saga_id, "reason": str(error)})
            await self.quarantine(saga_id, Failure(Code.INTERNAL, f"its events cannot be read: {error}"))
        return page.sagas

    async def find_saga(self, saga_id: SagaId, /) -> StoredSaga | None:
        """One saga with its events; of a quarantined one those before the first that cannot be read. Raises CorruptJournalError if the
        events cannot be read and nobody has noticed yet."""
        return await self._read(partial(queries.find_saga, saga_id=saga_id, wrote=self._ownership.wrote))

    async def find_by_key(self, definition_name: str, key: str, now: Instant, /) -> StoredSaga | None:
        """The saga (without events) that holds an unexpired start key; None if nobody does."""
        return await self._read(partial(queries.find_by_key, definition_name=definition_name, key=key, now=now))

    async def list_sagas(self, where: SagaFilter, before: tuple[Instant, SagaId] | None, limit: int, /) -> Sequence[StoredSaga]:
        """Sagas without events, newest first by (created_at, id), strictly before the cursor."""
        return await self._read(partial(listings.list_sagas, where=where, before=before, limit=limit))

    async def list_incidents(
        self, where: IncidentFilter, after: tuple[Instant, SagaId, int] | None, limit: int, /
    ) -> Sequence[StoredIncident]:
        """Incidents, oldest first by (opened_at, saga_id, id), strictly after the cursor. Those of sagas set aside have the id 0."""
        return await self._read(partial(listings.list_incidents, where=where, after=after, limit=limit))

    async def read_events(self, saga_id: SagaId, after: int, limit: int, /) -> Sequence[bytes]:
        """Encoded events after a sequence, in order; empty also for an unknown saga."""
        return await self._read(partial(queries.read_events, saga_id=saga_id, after=after, limit=limit))

    async def forget(self, ended_before: Instant, now: Instant, limit: int, /) -> Forgotten:
        """Deletes at most `limit` sagas of this process's shards that ended before that, and as many start keys that have expired."""
        shards = frozenset(self._ownership.shards)
        work = partial(forgetting.forget, shards=shards, ended_before=ended_before, now=now, limit=limit)
        return await self._commits.write_beside(work)

    # ── Definitions, participants and secrets ───────────────────────────────────────────────────────────────────────────────────

    async def put_definition(self, definition: StoredDefinition, /) -> StoredDefinition:
        """Stores a definition unless its key is taken; returns what is stored under the key now."""
        return await self._commits.write_beside(partial(side_writes.put_definition, definition=definition))

    async def find_definition(self, name: str, version: int, /) -> StoredDefinition | None:
        """One definition; version 0 is the highest. None if there is none."""
        return await self._read(partial(queries.find_definition, name=name, version=version))

    async def list_definitions(self, name: str, after: DefinitionKey | None, limit: int, /) -> Sequence[StoredDefinition]:
        """Definitions by name and version, after the cursor; `name` empty: all."""
        return await self._read(partial(queries.list_definitions, name=name, after=after, limit=limit))

    async def put_participant(self, participant: StoredParticipant, /) -> None:
        """Stores a registration, or renews the one of the same name and target."""
        await self._commits.write_beside(partial(side_writes.put_participant, participant=participant))

    async def list_participants(self) -> Sequence[StoredParticipant]:
        """Every registration, expired ones included."""
        return await self._read(queries.list_participants)

    async def keep_secret(self, name: str, offered: bytes, /) -> bytes:
        """The secret of that name: stores the offered one if there is none yet."""
        return await self._commits.write_beside(partial(side_writes.keep_secret, name=name, offered=offered))

    async def _read(self, query: Callable[[Connection], ResultT]) -> ResultT:
        lost = self._commits.lost
        if lost is not None or self._is_closed:
            raise JournalUnavailableError(lost.message if lost is not None else "the journal is closed")
        try:
            return await self._opened.reader.read(query)
        except DamagedReadError:
            # Whatever spoiled it, the writer is the one to judge: it ends this process if the files are not as it left them.
            await self._commits.write_beside(lambda _: None)
            raise
