"""What becomes of a request with an idempotency key: a pure function of the key's record and the claim. Stores only execute it.

Instants are microseconds by the clock of the store, which is one clock for all processes that share it (R31): a process whose own clock is
wrong takes nobody's lease away and forgets nothing too early.
"""

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final, TypeAlias

from participant_sdk.clock import MICROS_PER_SECOND

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names in lower case and values, in order."""


class WhenUnknown(Enum):
    """What a repetition does when nobody knows whether the run before it took effect: it raised, its process was killed, or its answer
    could not be stored. Unknown does not mean that it did not happen.
    """

    RUN_AGAIN = auto()
    """It runs again. For handlers that bear it: their effect is one database transaction, or is guarded by a key of its own."""
    REFUSE = auto()
    """It is refused until the key expires, so that nothing is ever done twice; a person finds out what happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What is answered to every repetition."""

    status: int
    """The HTTP status, or the number of the gRPC status code."""
    headers: Headers = ()
    """The headers, or the trailing metadata, that are repeated."""
    body: bytes | None
    """None if it was too large to be kept: it was given once, and a repetition is told so instead of running again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish to run under a key."""

    record_key: str
    """Names the record: a digest of tenant, operation and key, see `keys.record_key`."""
    client_key: str
    """The key as the client sent it. For people who look into the table."""
    operation: str
    """For people, too. Example: "POST /payments"."""
    fingerprint: bytes
    """SHA-256 of the request: the same key must not carry another one (R22)."""
    owner: str = field(repr=False)
    """Names this run and no other one: only with it an answer is stored, so that a run that was overtaken overwrites nothing."""
    lease_us: int
    """How long the run has the key for itself, unless it renews."""
    lifetime_us: int
    """How long the key is remembered."""
    when_unknown: WhenUnknown = WhenUnknown.RUN_AGAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """What is remembered about one key."""

    record_key: str
    client_key: str
    operation: str
    fingerprint: bytes
    owner: str = field(repr=False)
    """The run that has the key, or had it last."""
    locked_until_us: int
    """Until when that run may be going on; 0 once it is known to have ended."""
    answer: StoredAnswer | None = None
    """None: it is under way, or nobody knows how it ended."""
    created_at_us: int
    """When the key was first seen."""
    expires_at_us: int
    """When the key may be forgotten."""


@dataclass(frozen=True, slots=True)
class Run:
    """The key is yours: run, then store the answer or give the key back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Answer what was answered before."""

    answer: StoredAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class InProgress:
    """Another run has the key."""

    wait_us: int
    """How long its lease goes on, unless it is renewed. More than 0."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Refuse: a run before this one ended, and nobody knows whether it took effect."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Refuse: the key was used for another request (R22)."""


Verdict: TypeAlias = Run | Replay | InProgress | InDoubt | Mismatch

_UNLOCKED: Final = 0


def judge(record: IdempotencyRecord | None, claim: Claim, *, now_us: int) -> Verdict:
    """Decides about a claim; `record` is None if the key was never seen or is forgotten. After Run the record is `claimed`."""
    if record is None or is_expired(record, now_us=now_us):
        return Run()
    if record.fingerprint != claim.fingerprint:
        return Mismatch()
    if record.answer is not None:
        return Replay(answer=record.answer)
    if record.owner == claim.owner:
        return Run()  # It was committed, and only the news of it was lost (R26).
    if now_us < record.locked_until_us:
        return InProgress(wait_us=record.locked_until_us - now_us)
    match claim.when_unknown:
        case WhenUnknown.RUN_AGAIN:
            return Run()
        case WhenUnknown.REFUSE:
            return InDoubt()


def is_expired(record: IdempotencyRecord, *, now_us: int) -> bool:
    """Whether the key may be forgotten. Never while a run has it."""
    return record.expires_at_us <= now_us and record.locked_until_us <= now_us


def claimed(record: IdempotencyRecord | None, claim: Claim, *, now_us: int) -> IdempotencyRecord:
    """The record as that run begins."""
    is_same = record is not None and not is_expired(record, now_us=now_us)
    return IdempotencyRecord(
        record_key=claim.record_key,
        client_key=claim.client_key,
        operation=claim.operation,
        fingerprint=claim.fingerprint,
        owner=claim.owner,
        locked_until_us=now_us + claim.lease_us,
        created_at_us=record.created_at_us if is_same and record is not None else now_us,
        expires_at_us=now_us + claim.lifetime_us,
    )


def renewed(record: IdempotencyRecord, claim: Claim, *, now_us: int) -> IdempotencyRecord:
    """The record of a run that goes on."""
    return replace(record, locked_until_us=now_us + claim.lease_us)


def completed(record: IdempotencyRecord, claim: Claim, answer: StoredAnswer, *, now_us: int) -> IdempotencyRecord:
    """The record with its answer. The key is remembered from here on as long as a client was told."""
    return replace(record, answer=answer, locked_until_us=_UNLOCKED, expires_at_us=now_us + claim.lifetime_us)


def left_in_doubt(record: IdempotencyRecord, claim: Claim, *, now_us: int) -> IdempotencyRecord:
    """The record of a run that has ended without telling whether it took effect."""
    return replace(record, locked_until_us=_UNLOCKED, expires_at_us=now_us + claim.lifetime_us)


def seconds(duration_us: int) -> float:
    """The same duration in seconds."""
    return duration_us / MICROS_PER_SECOND
