"""Which of the appends of one batch are written: a pure decision, the same for every journal (R4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coordinator.core.values import Instant, SagaId
from coordinator.engine.ports import Append, Appended, Committed, Moved, Refused, StartKey, StartLost
from coordinator.journal.records import Record


class KeyName(NamedTuple):
    """What start keys are unique by."""

    definition_name: str
    key: str


class KeyHolder(NamedTuple):
    """The start that holds a key."""

    saga_id: SagaId
    fingerprint: bytes
    expires_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What becomes of a batch."""

    kept: tuple[Record, ...]
    """What is written, in order."""
    results: tuple[Appended, ...]
    """One per record of the batch, in order; true once `kept` is committed."""


def name_of(key: StartKey) -> KeyName:
    """What this key is unique by."""
    return KeyName(key.definition_name, key.key)


def keys_of(records: Sequence[Record]) -> list[KeyName]:
    """The start keys that a batch asks for, each once."""
    starts = (record.append.start for record in records)
    return list({name_of(start.key): None for start in starts if start is not None and start.key is not None})


def settle(records: Sequence[Record], holders: Mapping[KeyName, KeyHolder], taken: Mapping[SagaId, bytes]) -> Settled:
    """Drops the starts that another start has forestalled, in the journal or earlier in this batch, and what was appended after them.

    `holders` are the keys that are in the journal, expired ones included; `taken` the fingerprints of saga ids that are known to be there.
    A key counts before an id: a start that loses by both is told the holder of its key.
    """
    held, ids = dict(holders), dict(taken)
    alive: set[SagaId] = set()
    losses: dict[SagaId, StartLost] = {}
    kept: list[Record] = []
    results: list[Appended] = []
    for record in records:
        append = record.append
        loss = _loss_of(append, held, ids) if append.start is not None else losses.get(append.saga_id)
        if loss is None:
            if append.start is not None:
                _take(append, held, ids)
                losses.pop(append.saga_id, None)
            alive.add(append.saga_id)
            kept.append(record)
            results.append(Committed(append=append))
            continue
        if append.saga_id not in alive:  # else what follows belongs to the saga that is there
            losses[append.saga_id] = loss
        results.append(follow(loss, append))
    return Settled(kept=tuple(kept), results=tuple(results))


def follow(verdict: StartLost | Refused, append: Append) -> StartLost | Refused:
    """The same verdict for an append that was made on the strength of one that came to nothing."""
    if isinstance(verdict, Refused):
        return Refused(append=append, failure=verdict.failure)
    return StartLost(append=append, winner=verdict.winner, same=verdict.same, by_key=verdict.by_key)


def doom(pending: Sequence[Append], verdicts: Mapping[SagaId, StartLost | Refused]) -> tuple[list[Append], list[StartLost | Refused]]:
    """Splits appends that are still queued into those that go on, and the verdicts of those that fall with an earlier one of their saga.

    They end with the next start of the same saga, which stands on its own.
    """
    falling = dict(verdicts)
    going_on: list[Append] = []
    fallen: list[StartLost | Refused] = []
    for append in pending:
        if append.start is not None:
            falling.pop(append.saga_id, None)
        verdict = falling.get(append.saga_id)
        if verdict is None:
            going_on.append(append)
        else:
            fallen.append(follow(verdict, append))
    return going_on, fallen


def verdicts_of(results: Sequence[Appended]) -> dict[SagaId, StartLost | Refused]:
    """The sagas of which nothing may be written any more on the strength of what was queued before: those whose last verdict is bad."""
    found: dict[SagaId, StartLost | Refused] = {}
    committed: set[SagaId] = set()
    for result in results:
        saga_id = result.append.saga_id
        if isinstance(result, Committed):
            committed.add(saga_id)
            found.pop(saga_id, None)
        elif not isinstance(result, Moved) and (saga_id not in committed or isinstance(result, Refused)):
            found[saga_id] = result
    return found


def _loss_of(append: Append, held: Mapping[KeyName, KeyHolder], ids: Mapping[SagaId, bytes]) -> StartLost | None:
    start = append.start
    assert start is not None
    holder = None if start.key is None else held.get(name_of(start.key))
    if holder is not None and holder.expires_at > start.created_at:
        same = holder.fingerprint == start.fingerprint
        return StartLost(append=append, winner=holder.saga_id, same=same, by_key=True)
    fingerprint = ids.get(append.saga_id)
    if fingerprint is not None:
        return StartLost(append=append, winner=append.saga_id, same=fingerprint == start.fingerprint, by_key=False)
    return None


def _take(append: Append, held: dict[KeyName, KeyHolder], ids: dict[SagaId, bytes]) -> None:
    start = append.start
    assert start is not None
    ids[append.saga_id] = start.fingerprint
    if start.key is not None:
        held[name_of(start.key)] = KeyHolder(append.saga_id, start.fingerprint, start.key.expires_at)
