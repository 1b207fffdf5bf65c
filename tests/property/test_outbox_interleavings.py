"""Whatever relays do, in whatever order, with whatever clocks: every committed event is published at least once, none that was rolled back
ever is, the events of a key arrive for the first time in their order, and every row is counted once.

Relays take rows, publish some of them, fail, die and are slow beyond their leases; persons redrive what was given up.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from participant_sdk.outbox import Outbox, OutboxKind
from participant_sdk.outbox.store import GivenUp, OutboxStore, Published, PutBack, RowOutcome, TakenRow, TryLater
from tests.contract.barrier.calls import SECOND_US, ManualClock

EXAMPLES_SHARE = 4
"""What part of the profile's examples: each one makes a database."""
STEPS = 120
"""Of one life."""
FINISHING_MAX = 400
"""Rounds after which all must have arrived."""
LEASE_US = 10 * SECOND_US
RELAYS = 3
SKEWS_S = (-25, 0, 25)
"""How far the clocks of relays are off, at most: more than a lease."""


@dataclass
class Relay:
    """One that does step by step what an `OutboxRelay` does at its own pace."""

    store: OutboxStore
    runs: list[tuple[str, list[TakenRow]]] = field(default_factory=list)
    """What it has taken, by the token of the taking; rows of one key together."""
    outcomes: list[RowOutcome] = field(default_factory=list)
    """What it has not written down yet."""


class Life:
    """A service, its relays and its persons, by the chance of one seed."""

    def __init__(self, path: Path, chance: Random) -> None:
        self.chance = chance
        self.engine = create_engine(f"sqlite:///{path}")
        with self.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
        self.clock = ManualClock()
        self.outbox = Outbox(clock=self.clock)
        self.person = self.outbox.store(self.engine, clock=self.clock)
        self.relays = [self._relay(chance.choice(SKEWS_S)) for _ in range(RELAYS)]
        self.committed: list[tuple[str, str]] = []
        """Keys and ids, in the order of the commits."""
        self.arrived: list[str] = []

    def _relay(self, skew_s: int) -> Relay:
        return Relay(self.outbox.store(self.engine, clock=lambda: self.clock() + skew_s * SECOND_US))

    async def live(self) -> None:
        """So many steps, then all that is left to its end."""
        await self.outbox.create_table(self.engine)
        steps = {self.write: 3, self.take: 5, self.publish: 12, self.settle: 4, self.die: 1, self.wait: 2, self.redrive: 1}
        for number in range(STEPS):
            (step,) = self.chance.choices([*steps], [*steps.values()])
            await step(self.chance.choice(self.relays))
            self.check_arrivals()
            if number % 10 == 0:
                await self.check_counts()
        await self.finish()
        self.engine.dispose()

    async def write(self, _: Relay) -> None:
        keys = self.chance.choices(["", "a", "a", "b"], k=self.chance.randint(1, 4))
        with Session(self.engine) as session:
            ids = [(key, str(self.outbox.publish(session, b"", topic="t", key=key))) for key in keys]
            session.flush()
            if self.chance.random() < 0.7:
                session.commit()
                self.committed += ids

    async def take(self, relay: Relay) -> None:
        taken = await relay.store.take(OutboxKind.EVENT, limit=self.chance.randint(1, 5), lease_us=LEASE_US)
        by_key: dict[str, list[TakenRow]] = {}
        for row in taken.rows:
            by_key.setdefault(row.key or row.id, []).append(row)
        relay.runs += [(taken.token, rows) for rows in by_key.values()]

    async def publish(self, relay: Relay) -> None:
        if relay.runs:
            self._publish(relay, self.chance.choice(["arrive"] * 7 + ["fail", "refuse", "away"]))

    def _publish(self, relay: Relay, ending: str) -> None:
        token, rows = self.chance.choice(relay.runs)
        row = rows.pop(0)
        if ending == "arrive":
            self.arrived.append(row.id)
            relay.outcomes.append(Published(position=row.position))
        else:
            failure: dict[str, RowOutcome] = {
                "fail": TryLater(position=row.position, token=token, delay_us=SECOND_US, error="lost"),
                "refuse": GivenUp(position=row.position, token=token, error="no"),
                "away": PutBack(position=row.position, token=token, delay_us=0),
            }
            relay.outcomes.append(failure[ending])
            relay.outcomes += [PutBack(position=each.position, token=token, delay_us=0) for each in rows]
            rows.clear()
        relay.runs = [each for each in relay.runs if each[1]]

    async def settle(self, relay: Relay) -> None:
        if relay.outcomes:
            await relay.store.settle(relay.outcomes)
            relay.outcomes = []

    async def die(self, relay: Relay) -> None:
        relay.runs, relay.outcomes = [], []

    async def wait(self, _: Relay) -> None:
        self.clock.advance(self.chance.choice([1, 11]))

    async def redrive(self, _: Relay) -> None:
        await self.outbox.redrive_all(self.engine)

    async def finish(self) -> None:
        """The broker is back, and one relay goes on."""
        for relay in self.relays:
            await self.die(relay)
        last = self.relays[0]
        for _ in range(FINISHING_MAX):
            if (await self.person.statistics()).published == len(self.committed):
                break
            self.clock.advance(60)
            await self.redrive(last)
            await self.take(last)
            while last.runs:
                self._publish(last, "arrive")
            await self.settle(last)
        await self.check_counts()
        self.check_arrivals()
        assert set(self.arrived) == {name for _, name in self.committed}, "every committed event has arrived"

    async def check_counts(self) -> None:
        """Every row is counted once."""
        statistics = await self.person.statistics()
        assert statistics.pending + statistics.published + statistics.failed == len(self.committed)
        assert statistics.held + statistics.retrying <= statistics.pending
        with self.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM saga_outbox WHERE attempts < 0").scalar_one() == 0

    def check_arrivals(self) -> None:
        """Nothing arrives that was rolled back, and nothing of a key before what was written earlier."""
        known = {name: key for key, name in self.committed}
        assert set(self.arrived) <= known.keys()
        for key in ("a", "b"):
            first = list(dict.fromkeys(name for name in self.arrived if known[name] == key))
            assert first == [name for its, name in self.committed if its == key][: len(first)]


@example(seed=620)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=settings().max_examples // EXAMPLES_SHARE)
def test_committed_events_arrive_at_least_once_in_the_order_of_their_keys_and_no_others_ever(seed: int) -> None:
    with TemporaryDirectory() as directory:
        asyncio.run(Life(Path(directory) / "service.db", Random(seed)).live())
