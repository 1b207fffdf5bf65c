"""This coordinator: client, coordinator and participants as processes of their own, with everything that can be chosen.

SQLite with `synchronous = FULL`, PostgreSQL as it comes; every event is committed before what follows from it is done. Prints one line of
JSON, after the participants' books were found to be right.
"""

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.effects import EFFECTS
from benchmarks.journals import journal_of, with_postgres_of_its_own
from benchmarks.load import add_load_arguments, load_arguments
from benchmarks.measured_run import WARM_UP_SAGAS, Run, Work, add_work_arguments, tell, work_of
from benchmarks.peers.databases import add_database_arguments
from benchmarks.peers.processes import child, end_in_good_order, free_port, python
from benchmarks.system import CONCURRENCY, Options, System, percentile, run_load, system, tracing_environment
from tests.processes import python_environment


def main(given: argparse.Namespace) -> Run:
    work = work_of(given)
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as name, ExitStack() as stack:
        directory = Path(name)
        collector = stack.enter_context(span_collector(directory)) if given.tracing == "all" else None
        database, more_processes = asyncio.run(journal_of(given, directory))
        options = options_of(given, database)
        if collector is not None:
            options = replace(options, collector=collector.endpoint)
            os.environ.update(tracing_environment(collector.endpoint))  # for the client
            more_processes["collector"] = collector.pid
        running = stack.enter_context(system(directory, options))
        told = directory / "told.json"
        processes = {**running.processes, **more_processes}
        run = run_load(running.address, work, processes, *load_arguments(given), "--told", str(told))
        more = {"start_s": running.start_s, **rows_per_commit(running)}
        running.check_books(work)
        if work.is_compensated:
            more |= turning_back(running, told, work)
        if collector is not None:
            more["spans_per_saga"] = collector.count() / (work.sagas + min(WARM_UP_SAGAS, work.sagas))
        return replace(run, more=more)


def options_of(given: argparse.Namespace, database: str) -> Options:
    """What was asked for, on that database."""
    return Options(
        database=database,
        participants=given.participants,
        calls=given.calls,
        barrier=given.barrier,
        concurrency=given.participant_concurrency,
    )


def rows_per_commit(running: System) -> dict[str, float]:
    """How many rows the journal has shared a commit between, the warm-up included."""
    counts = running.counts()
    return {"rows_per_commit": counts["rows"] / max(1, counts["commits"])}


def turning_back(running: System, told: Path, work: Work) -> dict[str, float]:
    """From the refusal, in the participant, until the client was told that everything is undone; of the sagas that were measured."""
    refused_at, told_at = running.notes("refused_at"), json.loads(told.read_text())
    numbers = range(WARM_UP_SAGAS, WARM_UP_SAGAS + work.sagas)
    took = sorted(told_at[str(number)] - refused_at[number] for number in numbers)
    return {"turning_back_p50_ms": 1000 * percentile(took, 50), "turning_back_p99_ms": 1000 * percentile(took, 99)}


class SpanCollector:
    """A process that takes spans."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        address, self._count = f"127.0.0.1:{free_port()}", directory / "spans"
        command = python("benchmarks.span_collector", "--address", address, "--count", str(self._count))
        self._child = stack.enter_context(child(command, directory / "collector.log", python_environment()))
        self._child.wait_until_listening(int(address.rpartition(":")[2]))
        self.endpoint: Final = f"http://{address}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def count(self) -> int:
        """Of the spans that came. Ends it."""
        self._child.stop()
        return int(self._count.read_text())


@contextmanager
def span_collector(directory: Path) -> Iterator[SpanCollector]:
    """One that runs as long as the context lasts."""
    with ExitStack() as stack:
        yield SpanCollector(directory, stack)


def add_our_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen of the coordinator and its participants."""
    add_database_arguments(parser)
    parser.add_argument("--calls", choices=["exchange", "unary"], default="exchange", help="on one stream, or unary (default %(default)s)")
    parser.add_argument("--barrier", choices=list(EFFECTS), default="none", help="of the participants (default %(default)s)")
    parser.add_argument("--tracing", choices=["off", "all"], default="off", help="all: every span is exported (default %(default)s)")
    parser.add_argument(
        "--participant-concurrency", type=int, default=CONCURRENCY, help="calls under way per participant (default %(default)s)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_work_arguments(parser)
    add_load_arguments(parser)
    add_our_arguments(parser)
    arguments = parser.parse_args()
    end_in_good_order()
    with_postgres_of_its_own(arguments, "benchmarks.ours")
    tell(main(arguments))
