"""What must be true after the storm, judged from what each process has written: diaries of clients, ledgers of participants, the journal.

Nothing of the code that is judged decides here; what is said of effects are the laws of the simulated worlds.
"""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.wrappers_pb2 import StringValue

from saga.v1 import saga_pb2
from tests.integration.crashes.client_process import Diary, Told
from tests.integration.crashes.participant_process import read_ledger
from tests.integration.crashes.plans import LIMITED, PLANS, is_refused, shape_of, wish_of
from tests.simulation.chance import Chance
from tests.simulation.checkers import Committed, wrong_effects, wrong_journal
from tests.simulation.journal_of_world import Entry

COMPLETED: Final = saga_pb2.SAGA_STATUS_COMPLETED
COMPENSATED: Final = saga_pb2.SAGA_STATUS_COMPENSATED
END_OF: Final = {COMPLETED: "saga_completed", COMPENSATED: "saga_compensated"}
STORY_LINES_MAX: Final = 30
"""Of one saga: what went wrong is at the end, and who reads it may be shown so much of a failure only."""


class Row(NamedTuple):
    """What the journal says of a saga beside its events."""

    unfinished: int
    quarantine_code: int | None
    needs_person: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was written."""

    seed: int
    told: Sequence[Told]
    rows: Mapping[str, Row]
    payloads: Mapping[str, list[bytes]]
    """Events by saga."""
    ledger: Mapping[str, list[Entry]]
    """By saga."""


Execute = Callable[[str], Iterable[tuple[Any, ...]]]
"""Runs a query on the database of the journal."""


def query_sqlite(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Implements `Execute` for an SQLite file."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(statement).fetchall()


def read_evidence(directory: Path, *, seed: int, clients: Sequence[str], execute: Execute) -> Evidence:
    told: list[Told] = []
    for name in clients:
        diary = Diary(directory / f"{name}.db")
        told += diary.read().values()
        diary.close()
    payloads: dict[str, list[bytes]] = defaultdict(list)
    for saga_id, payload in execute("SELECT saga_id, payload FROM event ORDER BY saga_id, sequence"):
        payloads[str(saga_id)].append(payload)
    found = execute("SELECT saga_id, unfinished, quarantine_code, needs_person FROM saga")
    rows = {str(saga_id): Row(*row) for saga_id, *row in found}
    ledger: dict[str, list[Entry]] = defaultdict(list)
    for entry in read_ledger(directory):
        ledger[entry.saga_id].append(entry)
    return Evidence(seed=seed, told=told, rows=rows, payloads=payloads, ledger=ledger)


class Violation(NamedTuple):
    """A promise that was broken."""

    saga_id: str
    text: str


def violations_of(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong; empty: all is well."""
    return [*_wrong_numbers(evidence), *(Violation(told.saga_id, text) for told in evidence.told for text in _wrong_saga(evidence, told))]


def _wrong_numbers(evidence: Evidence) -> Iterator[Violation]:
    """One wish, one saga: however often it was asked for (R2, R4)."""
    asked = {f"#{told.number}" for told in evidence.told}
    sagas: dict[str, list[str]] = defaultdict(list)
    for saga_id, payloads in evidence.payloads.items():
        sagas[_input_of(payloads).split()[0]].append(saga_id)
    for number, ids in sagas.items():
        if len(ids) > 1:
            yield Violation(ids[0], f"{number} was started {len(ids)} times: {ids}")
        if number not in asked:
            yield Violation(ids[0], f"{number} was started, and nobody had asked for it")


def _input_of(payloads: Sequence[bytes]) -> str:
    text = StringValue()
    saga_pb2.Event.FromString(payloads[0]).saga_started.input.Unpack(text)
    return text.value


def _wrong_saga(evidence: Evidence, told: Told) -> Iterator[str]:
    payloads, row = evidence.payloads.get(told.saga_id), evidence.rows.get(told.saga_id)
    if payloads is None or row is None:
        if told.told_at_s is not None:
            yield "its start was answered, and it is not in the journal (P1)"
        return
    if told.complaint:
        yield told.complaint
    if row.unfinished or row.quarantine_code is not None or row.needs_person:
        yield f"it is not at rest: {row}"
    facts = Committed().follow(payloads)
    yield from wrong_journal(payloads, facts)
    if told.saga is None:
        yield "its client was never told that it has ended"
        return
    saga = saga_pb2.Saga.FromString(told.saga)
    if [END_OF.get(saga.status)] != facts.ends:
        yield f"its client was told {saga_pb2.SagaStatus.Name(saga.status)}, and the journal says {facts.ends}"
    yield from wrong_effects(shape_of(told.plan), saga, facts, evidence.ledger.get(told.saga_id, []))
    yield from _wrong_outcome(evidence, told, saga)


def _wrong_outcome(evidence: Evidence, told: Told, saga: saga_pb2.Saga) -> Iterator[str]:
    """Refused is undone; and what nothing but crashes came upon is done."""
    must_fall = is_refused(told.input, shape_of(told.plan))
    is_cancelled = wish_of(told.number, Chance(evidence.seed).stream("saga", told.number)).is_cancelled
    # The system outside may refuse what it has done before, and then nobody believes it: the saga turns back (R5).
    may_fall = is_cancelled or told.plan in LIMITED or any(step.action == "beta.do" for step in PLANS[told.plan].values())
    if must_fall and saga.status == COMPLETED:
        yield "it was refused, and is completed"
    if not must_fall and not may_fall and saga.status != COMPLETED:
        yield "nobody refused it, and it was undone"


# ── For people ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def story_of(evidence: Evidence, saga_id: str, began_at_s: float) -> str:
    """Everything that is known of one saga, in the order of time, in seconds since the storm began."""
    lines: list[tuple[float, str]] = [
        (entry.at_s, f"ledger   {entry.deed} {entry.step_id} ({entry.key})") for entry in evidence.ledger.get(saga_id, [])
    ]
    wall_ahead_s = time.time() - time.monotonic()
    for payload in evidence.payloads.get(saga_id, []):
        event = saga_pb2.Event.FromString(payload)
        at_s = event.occurred_at.seconds + event.occurred_at.nanos / 1e9 - wall_ahead_s
        kind = event.WhichOneof("fact") or ""
        lines.append((at_s, f"journal  {event.sequence} {kind} {_in_one_line(getattr(event, kind))}"))
    for told in evidence.told:
        if told.saga_id == saga_id:
            lines.append((told.intended_at_s, f"client   is about to start #{told.number}, {told.plan}: {told.input}"))
            known = ((told.told_at_s, "the start"), (told.ended_at_s, "the end"))
            lines += [(at_s, f"client   is told {what}") for at_s, what in known if at_s is not None]
    story = [f"{at_s - began_at_s:9.3f}  {text}" for at_s, text in sorted(lines)]
    if len(story) > STORY_LINES_MAX:
        left_out = len(story) - STORY_LINES_MAX
        half = STORY_LINES_MAX // 2
        story[half:-half] = [f"{'':9}  ... {left_out} lines are left out ..."]
    return "\n".join(story)


def _in_one_line(fact: object) -> str:
    return " ".join(str(fact).split())[:200]
