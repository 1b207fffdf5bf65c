"""Processes over real sockets while the network is bad and processes are killed and stopped; and what is left of it afterwards."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

from coordinator.bootstrap import EXIT_CANNOT_START, EXIT_LOST
from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.integration.crashes.client_process import Diary
from tests.integration.crashes.fault_proxy import CALM, FaultProxy, Harm, Weather
from tests.integration.crashes.laws import Evidence, query_sqlite, read_evidence, story_of, violations_of
from tests.processes import ROOT, free_port, python_environment, wait_until_serving
from tests.simulation.chance import Chance

PARTICIPANTS: Final = ("alpha", "beta", "gamma")
ROLES: Final = ("coordinator",) * 4 + PARTICIPANTS + ("client",) * 2
"""Who is hit, as often as it stands there."""
EXIT_LIMIT_S: Final = 30.0
STORIES_MAX: Final = 2
COORDINATOR: Final = {"SAGA_PARTICIPANT_CIRCUIT_OPEN_S_MAX": "1", "SAGA_DRAIN_TIME_LIMIT_S": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What happens; everything follows from it but the moments, which the machine decides."""

    seed: int
    sagas: int
    clients: int
    kills: int
    """SIGKILL."""
    stops: int
    """SIGSTOP, and SIGCONT some time later."""
    weather: Weather
    stop_s_max: float = 3.0
    time_limit_s: float
    """For everything. A saga that does not end is found by it."""
    nodes: int = 1
    """Coordinators; several need a database that they can share."""
    restarts: int = 0
    """Of the database's own server, without warning."""


class Books(Protocol):
    """Where the coordinators keep their journal."""

    @property
    def url(self) -> str:
        """As `saga serve` is told it."""

    def execute(self, statement: str, /) -> Iterable[tuple[Any, ...]]:
        """Asks it, past the coordinators."""

    async def restart(self) -> None:
        """Ends its server in the midst of everything, and starts it again."""


class SqliteBooks:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self.execute = partial(query_sqlite, path)

    async def restart(self) -> None:
        """It has no server."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """A process is hit."""

    role: str
    after: int
    """How many sagas have ended then."""
    delay_s: float
    """And so much later."""
    stop_s: float
    """How long it is stopped; 0: it is killed."""


def blows_of(storm: Storm) -> list[Blow]:
    """Spread over the time in which sagas run."""
    chance = Chance(storm.seed).stream("blows")
    kinds = ["kill"] * storm.kills + ["stop"] * storm.stops + ["restart"] * storm.restarts
    chance.shuffle(kinds)
    moments = sorted(chance.randrange(round(storm.sagas * 0.95)) for _ in kinds)
    return [_blow(chance, storm, after, kind) for after, kind in zip(moments, kinds, strict=True)]


def _blow(chance: Random, storm: Storm, after: int, kind: str) -> Blow:
    role = "database" if kind == "restart" else chance.choice(ROLES)
    if role == "client":
        role = f"client-{chance.randrange(storm.clients)}"
    elif role == "coordinator":
        role = f"coordinator-{chance.randrange(storm.nodes)}"
    stop_s = chance.uniform(0.2, storm.stop_s_max) if kind == "stop" else 0.0
    return Blow(role=role, after=after, delay_s=chance.uniform(0, 0.3), stop_s=stop_s)


class Member:
    """One process, started again and again."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], *, directory: Path, address: str = "") -> None:
        self.name = name
        self.address = address
        self._module = module
        self._arguments = arguments
        self._log = directory / f"{name}.log"
        self._process: ForkedProcess | None = None

    def start(self) -> None:
        environment = python_environment(COORDINATOR)
        self._process = FORK_SERVER.spawn(self._module, self._arguments, log=self._log, environment=environment, directory=ROOT)

    @property
    def process(self) -> ForkedProcess:
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(EXIT_LIMIT_S)

    def log(self, lines: int) -> str:
        return "\n".join(self._log.read_text().splitlines()[-lines:]) if self._log.exists() else ""


class Place:
    """All the processes and the network between them."""

    def __init__(self, storm: Storm, directory: Path, books: Books) -> None:
        self._storm = storm
        self._books = books
        self._directory = directory
        self._began_at_s = time.monotonic()
        self._told: list[str] = []
        self._proxies: list[FaultProxy] = []
        self._diaries: list[Diary] = []
        self.members: dict[str, Member] = {}
        self.kills = 0

    def tell(self, text: str) -> None:
        self._told.append(f"{time.monotonic() - self._began_at_s:9.3f}  {text}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything is started, and is no longer there afterwards."""
        async with AsyncExitStack() as stack:
            stack.callback(self._kill_all)
            await self._open(stack)
            yield

    async def _open(self, stack: AsyncExitStack) -> None:
        coordinators = [f"127.0.0.1:{free_port()}" for _ in range(self._storm.nodes)]
        for number, address in enumerate(coordinators):
            arguments = ["serve", "--address", address, "--database", self._books.url]
            self._add(Member(f"coordinator-{number}", "coordinator", arguments, directory=self._directory, address=address))
        for number, name in enumerate(PARTICIPANTS):
            address = f"127.0.0.1:{free_port()}"
            inward = await self._way(stack, f"{name}>coordinator", coordinators[number % len(coordinators)])
            outward = await self._way(stack, f"coordinator>{name}", address)
            arguments = [name, str(self._directory), inward, address, outward]
            module = "tests.integration.crashes.participant_process"
            self._add(Member(name, module, arguments, directory=self._directory, address=address))
        for member in self.members.values():
            await wait_until_serving(member.address, member.process)
        share = self._storm.sagas // self._storm.clients
        for number in range(self._storm.clients):
            name = f"client-{number}"
            address = await self._way(stack, f"{name}>coordinator", coordinators[number % len(coordinators)])
            numbers = [str(number * share), str((number + 1) * share - 1)]
            arguments = [name, str(self._directory), address, str(self._storm.seed), *numbers]
            self._diaries.append(Diary(self._directory / f"{name}.db"))
            stack.callback(self._diaries[-1].close)
            self._add(Member(name, "tests.integration.crashes.client_process", arguments, directory=self._directory))

    async def _way(self, stack: AsyncExitStack, name: str, target: str) -> str:
        proxy = FaultProxy(name, target, chance=Chance(self._storm.seed), tell=self.tell)
        await stack.enter_async_context(proxy)
        self._proxies.append(proxy)
        return proxy.address

    def _add(self, member: Member) -> None:
        self.members[member.name] = member
        member.start()

    def _kill_all(self) -> None:
        for member in self.members.values():
            member.kill()

    def change(self, weather: Weather) -> None:
        for proxy in self._proxies:
            proxy.change(weather)

    # ── The storm ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def weather_the_storm(self) -> None:
        """Until every saga has ended."""
        self.change(self._storm.weather)
        async with asyncio.TaskGroup() as stopped:
            for blow in blows_of(self._storm):
                await self._until(partial(self._has_come_to, blow.after), f"{blow.after} sagas have ended")
                await asyncio.sleep(blow.delay_s)  # a random moment is what is wanted here
                await self._hit(blow, stopped)
        self.tell("the storm is over")
        self.change(CALM)
        clients = [member.process for name, member in self.members.items() if name.startswith("client")]
        await self._until(lambda: all(client.returncode is not None for client in clients), "the clients have ended")
        assert [client.returncode for client in clients] == [0] * len(clients)
        await self._until(lambda: self._unfinished() == 0, "the last hooks have ended")
        self.tell("all has ended")

    async def end(self) -> None:
        """As after SIGTERM, the coordinator last."""
        for name in (*PARTICIPANTS, *(name for name in self.members if name.startswith("coordinator"))):
            process = self.members[name].process
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, EXIT_LIMIT_S) == 0, name

    async def _hit(self, blow: Blow, stopped: asyncio.TaskGroup) -> None:
        if blow.role == "database":
            self.tell("the server of the database is restarted")
            await self._books.restart()
            return
        self._look_after_all()
        member = self.members[blow.role]
        if member.process.returncode is not None:
            # A client that is through with its sagas: somebody else is hit in its place.
            member = self.members["coordinator-0"]
        if blow.stop_s:
            self.tell(f"SIGSTOP {member.name} for {blow.stop_s:.2f} s")
            member.process.send_signal(signal.SIGSTOP)
            stopped.create_task(self._wake(member.process, blow.stop_s))
            return
        self.tell(f"SIGKILL {member.name}")
        member.kill()
        self.kills += 1
        member.start()

    def _look_after_all(self) -> None:
        """Starts coordinators again, where the database is restarted under them, as whoever supervises them does: those that found none
        when they were started, and those that gave up rather than write what may not be theirs (R26, R27). Nobody else may end."""
        for name, member in self.members.items():
            code = member.process.returncode
            if code is None or (code == 0 and name.startswith("client")):
                continue
            is_supervised = self._storm.restarts and name.startswith("coordinator")
            can_start_again = is_supervised and code in {EXIT_CANNOT_START, EXIT_LOST}
            assert can_start_again, f"{name} has ended with {code}:\n{member.log(40)}\n{self.account()}"
            self.tell(f"{name} has ended with {code} and is started again")
            member.start()

    async def _wake(self, process: ForkedProcess, after_s: float) -> None:
        await asyncio.sleep(after_s)
        process.send_signal(signal.SIGCONT)

    async def _until(self, is_so: Callable[[], bool], what: str) -> None:
        while not is_so():
            self._look_after_all()
            left_s = self._began_at_s + self._storm.time_limit_s - time.monotonic()
            assert left_s > 0, f"waited in vain until {what}: {self.ended()} of {self._storm.sagas} sagas have ended\n{self.account()}"
            await asyncio.sleep(0.02)

    def ended(self) -> int:
        """How many clients were told the end of."""
        return sum(diary.ended() for diary in self._diaries)

    def _has_come_to(self, ended: int) -> bool:
        return self.ended() >= ended

    def _unfinished(self) -> int:
        ((count,),) = self._books.execute("SELECT count(*) FROM saga WHERE unfinished")
        return int(count)

    # ── Afterwards ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def evidence(self) -> Evidence:
        clients = [name for name in self.members if name.startswith("client")]
        return read_evidence(self._directory, seed=self._storm.seed, clients=clients, execute=self._books.execute)

    def account(self) -> str:
        """For people: the seed, what is wrong, its stories, and everything that was done."""
        evidence = self.evidence()
        wrong = violations_of(evidence)
        stories = [
            f"saga {saga_id}:\n{story_of(evidence, saga_id, self._began_at_s)}"
            for saga_id in list(dict.fromkeys(saga_id for saga_id, _ in wrong))[:STORIES_MAX]
        ]
        logs = [f"{name}:\n{member.log(5)}" for name, member in self.members.items()]
        return "\n\n".join(
            [
                f"seed {self._storm.seed}",
                "\n".join(f"saga {saga_id}: {text}" for saga_id, text in wrong[:20]),
                *stories,
                "what was done:\n" + "\n".join(self._told),
                *logs,
            ]
        )


STORMY: Final = Weather(
    every_s=6.0,
    harms=(Harm.CUT, Harm.RESET, Harm.RESET, Harm.STALL, Harm.STALL, Harm.DELAY, Harm.DELAY, Harm.DEAF, Harm.MUTE),
    refused=0.1,
)


async def run_storm(storm: Storm, directory: Path, books: Books | None = None) -> Place:
    """Runs it, and fails if a promise was broken. `books`: None for a file of SQLite."""
    place = Place(storm, directory, books or SqliteBooks(directory / "saga.db"))
    async with place.running():
        await place.weather_the_storm()
        await place.end()
    assert not violations_of(place.evidence()), place.account()
    return place


def used_seed() -> int:
    """A fresh one, or the one that the environment variable STORM_SEED asks for."""
    return int(os.environ.get("STORM_SEED") or Random().randrange(2**32))
