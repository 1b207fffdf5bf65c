"""Worlds from the command line: with progress, in several processes, and for a failing one its smallest form and its story."""

import argparse
import random
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

from tests.simulation.options import FAULTS, Options, drawn

SHRINKS_MAX = 60
"""Worlds that are tried to make a failing one smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one world. Small enough to be sent from process to process."""

    options: Options
    sagas: int
    violations: tuple[str, ...]
    fingerprint: str
    """Of everything that happened: equal for equal worlds."""
    took_s: float


def live(options: Options) -> Outcome:
    """Lives through one world."""
    from hashlib import sha256

    from tests.simulation.world import run

    began = time.perf_counter()
    record = run(options)
    told = record.transcript() + "".join(map(str, record.ledger))
    return Outcome(
        options=options,
        sagas=len(record.acknowledged),
        violations=tuple(record.violations),
        fingerprint=sha256(told.encode()).hexdigest(),
        took_s=time.perf_counter() - began,
    )


def live_many(every: Iterable[Options], *, jobs: int, until_s: float | None = None) -> Iterator[Outcome]:
    """Lives through many worlds side by side, as they end."""
    waiting: set[Future[Outcome]] = set()
    ends_at = None if until_s is None else time.monotonic() + until_s
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for options in every:
            if ends_at is not None and time.monotonic() > ends_at:
                break
            waiting.add(pool.submit(live, options))
            if len(waiting) >= 2 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        yield from (each.result() for each in wait(waiting).done)


def shrink(outcome: Outcome) -> Outcome:
    """The smallest world found that breaks the same promise: fewer sagas, then fewer faults."""
    rule, best = outcome.violations[0].partition(":")[0], outcome
    for options in islice(_smaller(outcome), SHRINKS_MAX):
        again = live(options(best.options))
        if any(violation.startswith(f"{rule}:") for violation in again.violations):
            best = again
    return best


def _smaller(outcome: Outcome) -> Iterator["Smaller"]:
    numbers = range(outcome.options.sagas)
    halves = [tuple(numbers[::2]), tuple(numbers[1::2])]
    named = _number_of(outcome)
    yield from (Smaller("only", only) for only in ([(named,)] if named is not None else []) + halves)
    yield from (Smaller(name, None) for name in FAULTS)


@dataclass(frozen=True, slots=True)
class Smaller:
    """One way to leave something out."""

    name: str
    value: tuple[int, ...] | None

    def __call__(self, options: Options) -> Options:
        return options.without(self.name) if self.value is None else replace(options, only=options.only or self.value)


def _number_of(outcome: Outcome) -> int | None:
    """The number of the saga that the first violation names."""
    from tests.simulation.world import saga_id_of

    found = re.search(r"saga ([0-9a-f-]{36})", outcome.violations[0])
    numbers = range(outcome.options.sagas)
    return next((n for n in numbers if found is not None and saga_id_of(outcome.options.seed, n) == found[1]), None)


def story(outcome: Outcome) -> str:
    """What to print about a world that broke a promise."""
    from tests.simulation.world import run

    smallest = shrink(outcome)
    found = re.search(r"saga ([0-9a-f-]{36})", smallest.violations[0]) if smallest.violations else None
    record = run(smallest.options)
    lines = [
        f"seed {outcome.options.seed} broke {len(outcome.violations)} promises, first: {outcome.violations[0]}",
        f"smallest world: {smallest.options.describe()}",
        *(f"  {violation}" for violation in smallest.violations[:5]),
        record.transcript("" if found is None else found[1]),
        f"again: make sim SEEDS={outcome.options.seed}",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command. 0: every promise was kept; 1: one was broken."""
    given = _parser().parse_args(arguments)
    if given.mutant:
        from tests.simulation.mutants import BY_NAME, infect

        infect(BY_NAME[given.mutant])
    every = (replace(drawn(seed), **_overridden(given.set)) for seed in _seeds(given.seeds))
    worlds, sagas, began = 0, 0, time.monotonic()
    outcomes = map(live, every) if given.jobs == 1 else live_many(every, jobs=given.jobs, until_s=given.minutes * 60 or None)
    for outcome in outcomes:
        worlds, sagas = worlds + 1, sagas + outcome.sagas
        if outcome.violations:
            print(story(outcome) if not given.mutant else outcome.violations[0])
            return 1
        if worlds % 10 == 0:
            print(f"{worlds} worlds, {sagas} sagas, {sagas / (time.monotonic() - began):.0f} sagas/s", file=sys.stderr)
    print(f"{worlds} worlds, {sagas} sagas in {time.monotonic() - began:.1f} s: every promise was kept")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make sim", description="Runs simulated worlds and checks every promise in them.")
    seeds = "7 (that one), 1:100 (a range), or fresh:20 (so many, chosen now), which is the default"
    parser.add_argument("--seeds", default="fresh:20", help=seeds)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long; with --seeds fresh:1000000 for a night")
    parser.add_argument("--mutant", default="", help="with that deliberate bug, which must be found")
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="another failure model, e.g. partitions=0")
    return parser


def _seeds(text: str) -> Iterable[int]:
    kind, _, rest = text.rpartition(":")
    if kind == "fresh":
        return (random.SystemRandom().randrange(2**32) for _ in range(int(rest)))
    return range(int(kind), int(rest)) if kind else [int(rest)]


def _overridden(said: Sequence[str]) -> dict[str, Any]:
    types = {field.name: type(getattr(Options(seed=0), field.name)) for field in fields(Options)}
    pairs = (each.partition("=") for each in said)
    return {name: tuple(map(int, value.split(","))) if types[name] is tuple else types[name](value) for name, _, value in pairs}
