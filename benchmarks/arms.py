"""What the suite measures: each arm is a driver with its options. Standard library only."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
ENVIRONMENTS: Final = ROOT / "build" / "bench"
"""Where each peer has its own, under its name."""
PEERS: Final = ("restate", "dbos", "naive", "temporal")
CLOSED, OPEN, OTHER = "closed loop", "open loop", "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One thing that is measured."""

    name: str
    """Unique, and the same in every results file: figures are computed by it."""
    label: str
    """For people. Arms that differ only in their concurrency or rate share it."""
    driver: str
    """"ours", "recovery", "core", "ceiling", or one of PEERS."""
    options: tuple[str, ...]
    kind: str = CLOSED
    """CLOSED, OPEN or OTHER."""
    size: int = 0
    """Sagas in flight in a closed loop; per second in an open one; in all otherwise."""
    expected_per_s: float = 1000.0
    """Sagas per second, to choose how many the first run does."""
    sagas: int = 0
    """That each run does; 0: as many as take the time that is given to a run."""
    runs_max: int = 1000
    """For what takes long."""

    @property
    def missing(self) -> str:
        """Why it cannot be measured here; empty: it can."""
        if self.driver in PEERS and not (ENVIRONMENTS / self.driver / ".installed").exists():
            return f"{self.driver} is not installed: make bench-peers"
        if self.driver in (*PEERS, "ceiling") and not (ROOT / "benchmarks" / "peers" / self.driver / "__main__.py").exists():
            return f"there is no driver benchmarks.peers.{self.driver}"
        return ""

    def command(self, sagas: int) -> list[str]:
        """How a run of so many sagas is started."""
        if self.driver in PEERS:
            driver = [str(ENVIRONMENTS / self.driver / "bin" / "python"), "-m", f"benchmarks.peers.{self.driver}"]
        elif self.driver == "ceiling":
            driver = [sys.executable, "-m", "benchmarks.peers.ceiling"]
        else:
            driver = [sys.executable, "-m", f"benchmarks.{self.driver}"]
        driver += [*self.options, "--sagas", str(sagas)]
        if "postgresql" in self.options:
            return [sys.executable, "-m", "benchmarks.peers.with_postgres", *driver]
        return driver


def _closed(
    name: str, label: str, driver: str, options: str, sizes: Sequence[int], expected_per_s: float, runs_max: int = 1000
) -> Iterator[Arm]:
    for size in sizes:
        yield Arm(
            name=f"{name}-{size}",
            label=label,
            driver=driver,
            options=(*options.split(), "--concurrency", str(size)),
            size=size,
            expected_per_s=expected_per_s if size > 1 else min(expected_per_s, 100.0),
            runs_max=runs_max,
        )


def _open(rate: int) -> Arm:
    options = ("--rate", str(rate))
    return Arm(name=f"ours-open-{rate}", label="ours", driver="ours", options=options, kind=OPEN, size=rate, expected_per_s=rate)


def _recovery(sagas: int, runs_max: int) -> Arm:
    name, label = f"ours-recovery-{sagas}", f"ours, killed with {sagas:,} sagas in flight"
    return Arm(name=name, label=label, driver="recovery", options=(), kind=OTHER, size=sagas, sagas=sagas, runs_max=runs_max)


_POSTGRES: Final = "--database postgresql"
ARMS: Final[tuple[Arm, ...]] = (
    *_closed("ours", "ours", "ours", "", (1, 16, 64, 256), 1000),
    *_closed("restate", "Restate", "restate", "", (1, 64, 256), 350),
    *_closed("dbos-sqlite", "DBOS, SQLite", "dbos", "--database sqlite", (64, 256), 100),
    *_closed("ceiling", "ceiling, SQLite", "ceiling", "", (64, 256), 6000),
    *_closed("ceiling-indexes", "ceiling with the indexes of the journal, SQLite", "ceiling", "--tables journal", (256,), 3000, runs_max=3),
    *_closed("ours-16-streams", "ours, 16 client streams, 3 participants", "ours", "--streams 16 --participants 3", (64,), 700),
    *_closed("ceiling-16-streams", "ceiling, 16 client streams, 3 participants", "ceiling", "--streams 16 --participants 3", (64,), 3000),
    *_closed("ours-unary-start", "ours, unary start", "ours", "--starts unary", (64,), 700),
    *_closed("ours-unary", "ours, unary everywhere", "ours", "--starts unary --calls unary", (64,), 400),
    *_closed("ours-postgres", "ours, PostgreSQL", "ours", _POSTGRES, (64, 256), 600),
    *_closed("dbos-postgres", "DBOS, PostgreSQL", "dbos", _POSTGRES, (64, 256), 100),
    *_closed("ceiling-postgres", "ceiling, PostgreSQL", "ceiling", _POSTGRES, (256,), 4000),
    *_closed("naive-sqlite", "naive, SQLite", "naive", "--database sqlite", (64,), 100, runs_max=3),
    *_closed("naive-postgres", "naive, PostgreSQL", "naive", _POSTGRES, (64,), 200, runs_max=3),
    *_closed("temporal", "Temporal, dev server", "temporal", "", (16, 64), 15, runs_max=3),
    *_closed("ours-tracing", "ours, every span exported", "ours", "--tracing all", (256,), 700),
    *_closed("ours-own", "ours, handlers write without a barrier", "ours", "--barrier own", (64,), 100),
    *_closed("ours-barrier", "ours, handlers write in the SQL barrier", "ours", "--barrier sql", (64,), 100),
    *_closed("ours-barrier-shared", "ours, handlers share commits of the SQL barrier", "ours", "--barrier shared", (64,), 200),
    *_closed("ours-mapped", "ours, inputs from expressions", "ours", "--mapped", (64,), 800),
    *_closed("ours-compensated", "ours, compensated", "ours", "--compensated", (64, 256), 500),
    *_closed("ours-compensated", "ours, compensated", "ours", "--compensated", (1,), 100, runs_max=3),
    *_closed("restate-compensated", "Restate, compensated", "restate", "--compensated", (64,), 250),
    *_closed("ours-9-steps", "ours, 9 steps", "ours", "--steps 9", (64,), 200, runs_max=3),
    *_closed("ours-30-steps", "ours, 30 steps", "ours", "--steps 30", (64,), 60, runs_max=3),
    *_closed("ours-2k", "ours, 2,000 bytes a message", "ours", "--filling 1940", (64,), 500, runs_max=3),
    *_closed("ours-20k", "ours, 20,000 bytes a message", "ours", "--filling 19940", (64,), 300, runs_max=3),
    *_closed("ours-200k", "ours, 200,000 bytes a message", "ours", "--filling 199940", (16,), 60, runs_max=3),
    *(_open(rate) for rate in (200, 1000, 3000)),
    _recovery(100, 3),
    _recovery(10_000, 2),
    Arm(name="core", label="the core by itself", driver="core", options=(), kind=OTHER, sagas=3000),
)
"""In the order of a round: what is compared stands close together, so that a noisy minute hits both."""
