"""Idempotency within one process, for tests and for services that are one process and may forget when it ends."""

import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from participant_sdk.clock import Clock
from participant_sdk.idempotency.errors import IdempotencyStoreUnavailableError
from participant_sdk.idempotency.verdict import (
    Claim,
    IdempotencyRecord,
    Run,
    StoredAnswer,
    Verdict,
    claimed,
    completed,
    is_expired,
    judge,
    left_in_doubt,
    renewed,
)

RECORDS_MAX_DEFAULT: Final = 10_000
BYTES_MAX_DEFAULT: Final = 64 * 2**20


def monotonic_us() -> int:
    """An instant that only this process knows, and that no correction of the machine's clock moves."""
    return time.monotonic_ns() // 1000


class MemoryIdempotencyStore:
    """Implements `IdempotencyStore` in the memory of this process. Two processes with one each do not know of each other, and all is
    forgotten at the end.

    Bounded: once full of what may not be forgotten yet, it refuses new keys as if it were away, rather than forget an answer and let its
    repetition run again.
    """

    def __init__(self, *, records_max: int = RECORDS_MAX_DEFAULT, bytes_max: int = BYTES_MAX_DEFAULT, clock: Clock = monotonic_us) -> None:
        """`records_max`: keys remembered at the same time. `bytes_max`: of stored answers; beyond it no new key is taken."""
        self._records: dict[str, IdempotencyRecord] = {}
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._clock = clock

    async def begin(self, claim: Claim) -> Verdict:
        now_us = self._clock()
        record = self._records.get(claim.record_key)
        verdict = judge(record, claim, now_us=now_us)
        if isinstance(verdict, Run):
            if record is None:
                self._make_room(now_us)
            self._put(claimed(record, claim, now_us=now_us))
        return verdict

    async def renew(self, claim: Claim) -> bool:
        return self._change(claim, lambda record, now_us: renewed(record, claim, now_us=now_us))

    async def complete(self, claim: Claim, answer: StoredAnswer) -> bool:
        record = self._records.get(claim.record_key)
        if record is None or record.owner != claim.owner:
            return False
        self._put(completed(record, claim, answer, now_us=self._clock()))
        return True

    async def abandon(self, claim: Claim) -> bool:
        if self._mine(claim) is None:
            return False
        self._drop(claim.record_key)
        return True

    async def leave_in_doubt(self, claim: Claim) -> bool:
        return self._change(claim, lambda record, now_us: left_in_doubt(record, claim, now_us=now_us))

    async def delete_expired(self, limit: int) -> int:
        now_us = self._clock()
        expired = list(islice((key for key, record in self._records.items() if is_expired(record, now_us=now_us)), limit))
        for key in expired:
            self._drop(key)
        return len(expired)

    def _mine(self, claim: Claim) -> IdempotencyRecord | None:
        """The record while that run has it, without an answer."""
        record = self._records.get(claim.record_key)
        return record if record is not None and record.owner == claim.owner and record.answer is None else None

    def _change(self, claim: Claim, change: Callable[[IdempotencyRecord, int], IdempotencyRecord]) -> bool:
        record = self._mine(claim)
        if record is None:
            return False
        self._put(change(record, self._clock()))
        return True

    def _put(self, record: IdempotencyRecord) -> None:
        self._drop(record.record_key)
        self._records[record.record_key] = record
        self._bytes += _size(record)

    def _drop(self, key: str) -> None:
        record = self._records.pop(key, None)
        if record is not None:
            self._bytes -= _size(record)

    def _make_room(self, now_us: int) -> None:
        if self._has_room():
            return
        for key in [key for key, record in self._records.items() if is_expired(record, now_us=now_us)]:
            self._drop(key)
        if not self._has_room():
            raise IdempotencyStoreUnavailableError(
                f"the memory for idempotency is full: {len(self._records)} keys of {self._records_max} with {self._bytes} bytes of "
                f"{self._bytes_max} are to be remembered; give it more, remember for less long, or use SqlIdempotencyStore"
            )

    def _has_room(self) -> bool:
        return len(self._records) < self._records_max and self._bytes < self._bytes_max


def _size(record: IdempotencyRecord) -> int:
    answer = record.answer
    if answer is None:
        return 0
    return len(answer.body or b"") + sum(len(name) + len(value) for name, value in answer.headers)
