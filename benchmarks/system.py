"""A coordinator, its participants and their client as processes of their own, as every benchmark of ours starts them."""

import json
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.measured_run import Run, Work
from benchmarks.peers.books import ASKING, STEP_NAMES, Books
from benchmarks.peers.processes import Child, child, free_port, python, run_client
from tests.processes import python_environment

READY_LIMIT_S: Final = 60.0
COUNTS_LIMIT_S: Final = 10.0
CONCURRENCY: Final = 256
"""Calls under way per participant at most: as many as sagas are in flight in the largest closed loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is started, and how."""

    database: str = ""
    """URL of the journal's database; empty: an SQLite file."""
    participants: int = 1
    """Processes that the steps are spread over, 1 to 3."""
    calls: str = "exchange"
    """How the coordinator calls them: "exchange" is many calls on one stream, "unary" each by itself."""
    barrier: str = "none"
    """What guards them: a name of `effects.EFFECTS`."""
    collector: str = ""
    """Where spans go, "http://host:port"; empty: nothing is traced."""
    concurrency: int = CONCURRENCY
    """Calls under way per participant at most."""
    is_held: bool = False
    """Whether participants answer nothing until they are told to."""


@dataclass(slots=True, kw_only=True)
class System:
    """What runs."""

    directory: Path
    address: str
    """Of the coordinator."""
    options: Options
    coordinator: Child
    start_s: float
    """From the start of the coordinator's process until it served."""
    participants: list[Child] = field(default_factory=list)
    _has_ended: bool = False

    @property
    def processes(self) -> dict[str, int]:
        """Their ids, by names that `merged` knows."""
        return {
            "coordinator": self.coordinator.pid,
            **{f"participants/{number}": each.pid for number, each in enumerate(self.participants, 1)},
        }

    def counts(self) -> Mapping[str, int]:
        """What the coordinator has counted since its start: commits, events, rows."""
        path = self.directory / COUNTS
        path.unlink(missing_ok=True)
        self.coordinator.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + COUNTS_LIMIT_S
        while not path.exists():
            if time.monotonic() > until:
                raise SystemExit(f"the coordinator writes no counts:\n{self.coordinator.tail()}")
            time.sleep(0.01)
        counts: dict[str, int] = json.loads(path.read_text())
        return counts

    def end_participants(self) -> None:
        """Has them write what they know, and ends them."""
        if not self._has_ended:
            for each in self.participants:
                each.stop(ASKING)
            self._has_ended = True

    def check_books(self, work: Work) -> None:
        """Ends the participants, and the program with a message unless every saga of a measured run did what it should."""
        path = self.directory / "books.json"
        path.write_text(json.dumps(self._entries()))
        Books.read(path).check(work)

    def check_done(self, numbers: Iterable[int]) -> None:
        """The same for sagas of these numbers, all of which are to be completed."""
        expected = {"done": {step: sorted(numbers) for step in STEP_NAMES}, "undone": {step: [] for step in STEP_NAMES}}
        found = {kind: {step: sorted(entries) for step, entries in steps.items()} for kind, steps in self._entries().items()}
        if found != expected:
            raise SystemExit("the participants' books are not those of completed sagas: nothing is measured")

    def _entries(self) -> dict[str, dict[str, list[int]]]:
        """What all participants have noted together, as `Books` writes it. They are ended."""
        self.end_participants()
        whole: dict[str, dict[str, list[int]]] = {}
        for number, each in enumerate(self.participants, 1):
            path = _books(self.directory, number)
            if not path.exists():
                raise SystemExit(f"a participant has written no books:\n{each.tail()}")
            for kind, steps in json.loads(path.read_text()).items():
                for step, numbers in steps.items():
                    whole.setdefault(kind, {}).setdefault(step, []).extend(numbers)
        return whole

    def notes(self, what: str) -> dict[int, float]:
        """Instants that the participants noted, by the number of the saga. They are ended."""
        self.end_participants()
        found: dict[int, float] = {}
        for number in range(1, len(self.participants) + 1):
            noted = json.loads(_books(self.directory, number).with_suffix(".notes").read_text())[what]
            found.update({int(saga): at for saga, at in noted.items()})
        return found


COUNTS: Final = "counts.json"


@contextmanager
def system(directory: Path, options: Options) -> Iterator[System]:
    """Starts a coordinator and its participants, and stops them at the end of the context."""
    with ExitStack() as processes:
        address = f"127.0.0.1:{free_port()}"
        coordinator, start_s = start_coordinator(directory, address, options, processes)
        running = System(directory=directory, address=address, options=options, coordinator=coordinator, start_s=start_s)
        running.participants = start_participants(directory, address, options, processes)
        yield running


def start_coordinator(directory: Path, address: str, options: Options, processes: ExitStack) -> tuple[Child, float]:
    """Starts one on its database; returns it, and after how many seconds it served."""
    environment = python_environment(
        {
            **_environment(options),
            "COUNTS": str(directory / COUNTS),
            "SAGA_PARTICIPANT_CONCURRENCY": str(options.concurrency),
        }
    )
    database = options.database or str(directory / "saga.db")
    began = time.monotonic()
    command = python("benchmarks.counting_coordinator", address, database)
    coordinator = processes.enter_context(child(command, directory / "coordinator.log", environment))
    wait_until_ready(address, coordinator)
    return coordinator, time.monotonic() - began


def start_participants(directory: Path, coordinator: str, options: Options, processes: ExitStack) -> list[Child]:
    """Starts as many as were asked for; returns them when they serve."""
    started: list[tuple[str, Child]] = []
    for number in range(1, options.participants + 1):
        address, books = f"127.0.0.1:{free_port()}", _books(directory, number)
        command = python("benchmarks.participants", "--coordinator", coordinator, "--address", address, "--name", f"bench{number}")
        command += ["--calls", options.calls, "--barrier", options.barrier, "--books", str(books)]
        command += ["--database", str(directory / f"bench{number}.db"), *(["--held"] if options.is_held else [])]
        log = directory / f"bench{number}.log"
        started.append((address, processes.enter_context(child(command, log, python_environment(_environment(options))))))
    for address, participant in started:
        wait_until_ready(address, participant)
    return [participant for _, participant in started]


def wait_until_ready(address: str, process: Child) -> None:
    """Returns when the health service there says SERVING. Ends the program if the process ends first, or takes too long."""
    process.wait_until_listening(int(address.rpartition(":")[2]))
    until = time.monotonic() + READY_LIMIT_S
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=READY_LIMIT_S, wait_for_ready=True)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            if time.monotonic() > until:
                raise SystemExit(f"nobody is ready at {address}:\n{process.tail()}")
            time.sleep(0.01)


def run_load(coordinator: str, work: Work, processes: Mapping[str, int] | None = None, *options: str) -> Run:
    """Has a client do the work there, after a warm-up; `options` are those of `benchmarks.load`."""
    return merged(run_client("benchmarks.load", work, processes or {}, "--coordinator", coordinator, *options))


def merged(run: Run) -> Run:
    """The same with one entry for processes of one kind: "participants/1" and "participants/2" are "participants"."""
    return replace(run, processor_ms=_sums(run.processor_ms), resident_mib=_sums(run.resident_mib))


def resident_mib(pid: int) -> float:
    """Memory of a process now, its children aside."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status tells no resident memory")


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    """Of values in their order, of which there is at least one."""
    return sorted_values[min(len(sorted_values) - 1, len(sorted_values) * percent // 100)]


def _environment(options: Options) -> dict[str, str]:
    return tracing_environment(options.collector) if options.collector else {}


def tracing_environment(collector: str) -> dict[str, str]:
    """Has a process export all of its spans, with queues that hold what busy seconds make, and so soon that the end of a run misses few."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_BSP_MAX_QUEUE_SIZE": "65536", "OTEL_BSP_SCHEDULE_DELAY": "100"}


def _books(directory: Path, number: int) -> Path:
    return directory / f"books{number}.json"


def _sums(by_process: Mapping[str, float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in by_process.items():
        kind = name.partition("/")[0]
        sums[kind] = sums.get(kind, 0.0) + value
    return sums
