"""Worlds from the command line: with progress, in several processes, and for a failing one its smallest form and its story.

The world itself is imported where it is lived through: a deliberate bug must be in its module before that is imported.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import sha256
from itertools import chain, islice, takewhile
from typing import Any

from tests.simulation.journal_of_world import Deed
from tests.simulation.mutants import BY_NAME, infect
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
    deeds: Mapping[Deed, int]
    """How often participants did what."""


def live(options: Options) -> Outcome:
    """Lives through one world."""
    from tests.simulation.world import run

    record = run(options)
    told = record.transcript() + "".join(map(str, record.ledger))
    return Outcome(
        options=options,
        sagas=len(record.acknowledged),
        violations=tuple(record.violations),
        fingerprint=sha256(told.encode()).hexdigest(),
        deeds=Counter(entry.deed for entry in record.ledger),
    )


def live_many(every: Iterable[Options], *, jobs: int) -> Iterator[Outcome]:
    """Lives through many worlds side by side, as they end."""
    waiting: set[Future[Outcome]] = set()
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for options in every:
            waiting.add(pool.submit(live, options))
            if len(waiting) >= 2 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        yield from (each.result() for each in wait(waiting).done)


def shrink(outcome: Outcome) -> Outcome:
    """The smallest world found that breaks the same promise: fewer sagas, then fewer faults."""
    rule, best = outcome.violations[0].partition(":")[0], outcome
    for smaller in islice(_smaller(outcome), SHRINKS_MAX):
        again = live(smaller(best.options))
        if any(violation.startswith(f"{rule}:") for violation in again.violations):
            best = again
    return best


def _smaller(outcome: Outcome) -> Iterator[Callable[[Options], Options]]:
    """Ways to leave something out: every saga but the one that the violation names, or half of them; then one fault after the other."""
    numbers, named = tuple(range(outcome.options.sagas)), _number_of(outcome)
    for only in (() if named is None else (named,), numbers[::2], numbers[1::2]):
        yield partial(_with_only, only)
    for name in FAULTS:
        yield partial(_without, name)


def _with_only(only: tuple[int, ...], options: Options) -> Options:
    return replace(options, only=options.only or only)


def _without(fault: str, options: Options) -> Options:
    return options.without(fault)


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
        infect(BY_NAME[given.mutant])
    every = (replace(drawn(seed), **dict(given.set)) for seed in given.seeds)
    worlds, sagas, began = 0, 0, time.monotonic()
    timely = _for(given.minutes * 60, every) if given.minutes else every
    outcomes = map(live, timely) if given.jobs == 1 else live_many(timely, jobs=given.jobs)
    for outcome in outcomes:
        worlds, sagas = worlds + 1, sagas + outcome.sagas
        if outcome.violations:
            print(story(outcome) if not given.mutant else f"seed {outcome.options.seed}: {outcome.violations[0]}")
            return 1
        if worlds % 10 == 0:
            print(f"{worlds} worlds, {sagas} sagas, {sagas / (time.monotonic() - began):.0f} sagas/s", file=sys.stderr)
    print(f"{worlds} worlds, {sagas} sagas in {time.monotonic() - began:.1f} s: every promise was kept")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make sim", description="Runs simulated worlds and checks every promise in them.")
    parser.add_argument(
        "--seeds", type=_seeds, default="fresh:20", help="7 (that one), 1:100 (1 to 99), 7,1:100 (both), fresh:20 (so many, the default)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no world after so long; with --seeds fresh:1000000 for a night")
    mutants = "with a deliberate bug, which must be found: its name in mutants.py"
    parser.add_argument("--mutant", choices=sorted(BY_NAME), metavar="NAME", help=mutants)
    parser.add_argument("--set", type=_setting, action="append", default=[], metavar="OPTION=VALUE", help="as in options.py: partitions=0")
    return parser


def _for(seconds: float, every: Iterable[Options]) -> Iterator[Options]:
    ends_at = time.monotonic() + seconds
    return takewhile(lambda _: time.monotonic() < ends_at, every)


def _seeds(text: str) -> Iterable[int]:
    return chain(*map(_some_seeds, text.split(",")))  # Read at once: a misspelt one is told before any world.


def _some_seeds(text: str) -> Iterable[int]:
    kind, _, rest = text.rpartition(":")
    if kind == "fresh":
        return (random.SystemRandom().randrange(2**32) for _ in range(int(rest)))
    return range(int(kind), int(rest)) if kind else [int(rest)]


def _setting(text: str) -> tuple[str, Any]:
    types = {field.name: type(getattr(Options(seed=0), field.name)) for field in fields(Options)}
    name, _, value = text.partition("=")
    if name not in types:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(types)}, found {name!r}")
    return name, tuple(map(int, value.split(","))) if types[name] is tuple else types[name](value)
