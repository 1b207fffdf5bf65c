"""The barrier on real databases under any interleaving of calls, duplicates, cancellations and crashes (R18-R20, R22, R26).

What `test_barrier_interleavings` does turn by turn in memory, here is done against the real thing: two processes with connections of their
own, and one key. A handler stands still until it is given a turn; what the database does in between is up to the database. A crash ends the
connections of a process from the side of the server and whatever it was doing.
"""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from participant_sdk import SqlBarrier
from participant_sdk.barrier.outcomes import CompensateOutcome, ExecuteOutcome, HandlerSucceeded, HandlerUndid
from participant_sdk.effects import DATABASE, EXTERNAL, Effect
from participant_sdk.step_context import SessionSource
from saga.v1 import participant_pb2
from tests.barrier_databases import LEDGER, Cutter, Place, made_database, mariadb_place, postgres_place, sqlite_place
from tests.contract.barrier.calls import ManualClock, compensate_call, execute_call, failed, postponed, rejected, reply
from tests.property.test_barrier_interleavings import Schedule

EXAMPLES_SHARE = 8
"""What part of the profile's examples: each one opens connections."""
PROCESSES = 2
TIME_LEFT_S = 10.0
UNDO_TRIES = 5
DRAIN_ROUNDS_MAX = 5_000
PAUSE_S = 0.002
"""How long the database has between two commands, so that both happen: that it is done, and that it is not."""
STORIES: tuple[list[str], ...] = ([], ["execute"], ["execute", "undo"])
"""All that can come of a key whose effect is in the database."""
ENDINGS = ("succeed", "succeed", "fail", "reject", "postpone")
VERBS = ("execute", "execute", "compensate", "turn", "turn", "turn", "pause", "cancel", "crash")
COMMANDS = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, PROCESSES - 1), st.sampled_from(ENDINGS)), min_size=4, max_size=16)


@dataclass
class Process:
    """One of a participant."""

    engine: AsyncEngine
    barrier: SqlBarrier
    schedule: Schedule = field(default_factory=Schedule)
    calls: "list[asyncio.Task[None]]" = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    """As the server numbers them."""
    is_dead: bool = False


class World:
    """One key in one database, whatever happens to it."""

    def __init__(self, place: Place, effect: Effect, *, calls_per_commit: int) -> None:
        self.place = place
        self.effect = effect
        self.key = str(uuid.uuid4())
        self.clock = ManualClock()
        self.calls_per_commit = calls_per_commit
        self.outside: list[str] = []
        """What an EXTERNAL effect did, in order."""
        self.replies: set[bytes] = set()
        self.is_known_undone = False
        self.processes = [self.boot() for _ in range(PROCESSES)]
        self.dropped: list[AsyncEngine] = []

    def boot(self) -> Process:
        engine = self.place.engine()
        process = Process(engine, SqlBarrier(engine, clock=self.clock, calls_per_commit=self.calls_per_commit))

        def refuse_if_dead(*_: object) -> None:
            if process.is_dead:
                raise ConnectionRefusedError("this process is dead")

        event.listen(engine.sync_engine, "do_connect", refuse_if_dead)
        if self.place.name != "sqlite":
            question = "SELECT pg_backend_pid()" if self.place.name == "postgresql" else "SELECT CONNECTION_ID()"

            def note(connection: Any, _: object) -> None:
                refuse_if_dead()
                cursor = connection.cursor()
                cursor.execute(question)
                process.connections.add(cursor.fetchone()[0])
                cursor.close()
                connection.rollback()

            event.listen(engine.sync_engine, "connect", note)
        return process

    # ── Handlers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def take_effect(self, process: Process, sessions: SessionSource, what: str) -> None:
        await process.schedule.turn()
        if self.effect is EXTERNAL:
            self.outside.append(what)
        else:
            assert isinstance(sessions.session, AsyncSession)
            await sessions.session.execute(insert(LEDGER).values(line=f"{self.key} {what}"))
        await process.schedule.turn()

    async def execute(self, process: Process, ending: str) -> None:
        async def run(sessions: SessionSource) -> ExecuteOutcome:
            if ending in {"reject", "postpone"}:
                return rejected() if ending == "reject" else postponed()
            try:
                await self.take_effect(process, sessions, "execute")
            except Exception as error:  # As the SDK does: what a handler raises is how it ends.
                return failed(error)
            return failed(RuntimeError("bug after the effect")) if ending == "fail" else HandlerSucceeded(response=reply("done"))

        call = replace(execute_call(self.clock, effect=self.effect, time_left_s=TIME_LEFT_S), key=self.key)
        answer = await process.barrier.execute(call, run)
        if isinstance(answer, participant_pb2.ExecuteResponse) and answer.HasField("succeeded"):
            self.replies.add(answer.SerializeToString(deterministic=True))

    async def compensate(self, process: Process, ending: str) -> None:
        async def run(sessions: SessionSource, output: PackedAny | None) -> CompensateOutcome:
            if ending in {"reject", "postpone"}:
                return postponed()
            try:
                await self.take_effect(process, sessions, "undo")
            except Exception as error:
                return failed(error)
            return failed(RuntimeError("bug after the effect")) if ending == "fail" else HandlerUndid()

        call = replace(compensate_call(self.clock, effect=self.effect, time_left_s=TIME_LEFT_S), key=self.key)
        answer = await process.barrier.compensate(call, None, run)
        if isinstance(answer, participant_pb2.CompensateResponse) and answer.HasField("compensated"):
            self.is_known_undone = True

    # ── Commands ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def obey(self, verb: str, number: int, ending: str) -> None:
        process = self.processes[number]
        match verb:
            case "execute":
                process.calls.append(asyncio.create_task(self.execute(process, ending)))
            case "compensate":
                process.calls.append(asyncio.create_task(self.compensate(process, ending)))
            case "turn":
                process.schedule.give()
            case "pause":
                await asyncio.wait([asyncio.create_task(asyncio.sleep(PAUSE_S))])
            case "cancel":
                for call in process.calls:
                    call.cancel()
            case _:
                await self.crash(number)
        await asyncio.sleep(0)

    async def crash(self, number: int) -> None:
        process = self.processes[number]
        process.is_dead = True
        if process.connections:
            await asyncio.to_thread(self.cut, sorted(process.connections))
        for call in process.calls:
            call.cancel()
        await self.give_turns_until_idle([process])
        self.dropped.append(process.engine)
        self.processes[number] = self.boot()

    def cut(self, numbers: list[int]) -> None:
        cutter = Cutter(self.place)
        for number in numbers:
            cutter.cut(number)
        cutter.close()

    async def give_turns_until_idle(self, processes: list[Process]) -> None:
        """Until every call has ended, whatever it waits for."""
        for _ in range(DRAIN_ROUNDS_MAX):
            calls = [call for process in processes for call in process.calls if not call.done()]
            if not calls:
                break
            for process in self.processes:  # Also those that hold what the others wait for.
                process.schedule.give()
            await asyncio.wait(calls, timeout=PAUSE_S)
        else:
            raise AssertionError(f"calls that do not end: {[call.get_stack() for call in calls]}")
        for process in processes:
            results = await asyncio.gather(*process.calls, return_exceptions=True)
            faults = [each for each in results if isinstance(each, Exception)]
            assert not faults, faults
            process.calls.clear()

    # ── Laws ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def check(self) -> None:
        assert len(self.replies) <= 1, "one key, one reply"
        if self.effect is DATABASE:
            effects = await self.effects()
            assert effects in STORIES, "each once, and undone only after it was done"
            assert "execute" in effects or not self.replies, "a success that never was"
        if self.is_known_undone and "execute" in (effects := await self.effects()):
            assert effects[-1] == "undo", "an effect outlives its compensation"

    async def effects(self) -> list[str]:
        if self.effect is EXTERNAL:
            return self.outside
        async with self.processes[0].engine.connect() as connection:
            found = await connection.scalars(select(LEDGER.c.line).where(LEDGER.c.line.startswith(self.key)).order_by(LEDGER.c.id))
            return [line.removeprefix(f"{self.key} ") for line in found]

    async def close(self) -> None:
        for engine in [*self.dropped, *(process.engine for process in self.processes)]:
            await engine.dispose()


async def tell_story(world: World, commands: list[tuple[str, int, str]]) -> None:
    async with world.processes[0].engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    for command in commands:
        await world.obey(*command)
    await world.give_turns_until_idle(world.processes)
    await world.check()
    # Whatever happened, the coordinator can bring the key to rest, if not at once: a busy database has it come again.
    for _ in range(UNDO_TRIES):
        world.clock.advance(TIME_LEFT_S + 1)
        await world.obey("compensate", 0, "succeed")
        await world.give_turns_until_idle(world.processes)
        if world.is_known_undone:
            break
    assert world.is_known_undone
    await world.check()


async def in_world(make_place: Callable[[], Place], effect: Effect, calls_per_commit: int, commands: list[tuple[str, int, str]]) -> None:
    world = World(make_place(), effect, calls_per_commit=calls_per_commit)
    try:
        await tell_story(world, commands)
    finally:
        await world.close()


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.full), "mariadb"])
def make_place(request: pytest.FixtureRequest) -> Callable[[], Place]:
    """The database of all examples: each has a key of its own."""
    if request.param == "postgres":
        place = postgres_place(made_database(request.getfixturevalue("postgres")[0].set(drivername="postgresql+psycopg")))
    elif request.param == "mariadb":
        place = mariadb_place(made_database(request.getfixturevalue("mariadb").set(drivername="mariadb+pymysql")))
    else:
        place = sqlite_place(request.getfixturevalue("tmp_path_factory").mktemp("interleavings") / "participant.db")
    asyncio.run(_emptied(place))
    return lambda: place


async def _emptied(place: Place) -> None:
    engine = place.engine()
    await place.empty(engine)
    await engine.dispose()


@pytest.mark.parametrize("calls_per_commit", [1, 8])
@pytest.mark.parametrize("effect", [DATABASE, EXTERNAL])
@settings(max_examples=max(settings().max_examples // EXAMPLES_SHARE, 1), phases=[Phase.generate])  # Time has a say: nothing to shrink.
@given(commands=COMMANDS)
def test_any_interleaving_on_a_real_database_keeps_the_promises_of_a_key(
    make_place: Callable[[], Place], effect: Effect, calls_per_commit: int, commands: list[tuple[str, int, str]]
) -> None:  # P2
    asyncio.run(in_world(make_place, effect, calls_per_commit, commands))
