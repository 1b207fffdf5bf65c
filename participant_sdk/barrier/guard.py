"""What every way through the barrier shares: locking within the deadline, repeating, and refusing."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias, TypeVar

import grpc
from google.rpc import status_pb2

from participant_sdk.barrier import answers
from participant_sdk.barrier.store import (
    BarrierStore,
    BarrierUnit,
    CommitInDoubtError,
    HandlerWriteError,
    LockWaitError,
    StoreBusyError,
    StoreUnavailableError,
)
from participant_sdk.barrier.verdict import (
    BarrierRow,
    CompensateCall,
    ExecuteCall,
    Expired,
    Locked,
    Mismatch,
    Replay,
    Sealed,
)
from participant_sdk.clock import MICROS_PER_SECOND, Clock, micros_of
from participant_sdk.errors import ParticipantSetupError, SessionMisusedError
from participant_sdk.rpc_errors import status_with
from saga.v1 import participant_pb2

logger = logging.getLogger(__name__)

REPEATS_MAX: Final = 5
"""How often one call begins its database transaction at most, when the database asks for repetition (R22)."""
LOCK_WAIT_SHARE: Final = 0.5
"""Share of the time left that a call waits for others on its key; the rest is for its own work."""
BUSY_DELAY: Final = timedelta(milliseconds=200)
"""When to call again after the database was too busy."""
LOCKED_DELAY_MIN: Final = timedelta(milliseconds=50)
"""When to call again at the earliest while another attempt may be running."""
LOCKED_DELAY_MAX: Final = timedelta(seconds=30)
"""When to call again at the latest: the attempt usually ends before its deadline."""

AnswerT = TypeVar("AnswerT")
OwnAnswer: TypeAlias = participant_pb2.RetryLater | status_pb2.Status
"""What the barrier may answer to any call, whatever the handler would say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A store with what is needed to judge by it."""

    store: BarrierStore
    retention: timedelta
    """How long keys are remembered."""
    clock: Clock

    @property
    def retention_us(self) -> int:
        return micros_of(self.retention)

    def on(self, store: BarrierStore) -> "Guard":
        """The same, judging by what another store finds."""
        return self if store is self.store else Guard(store=store, retention=self.retention, clock=self.clock)

    def wait_s(self, call: ExecuteCall | CompensateCall) -> float:
        """How long that call may wait for others on its key."""
        return max(call.deadline_us - self.clock(), 0) / MICROS_PER_SECOND * LOCK_WAIT_SHARE

    async def lock(self, unit: BarrierUnit, fresh: BarrierRow, call: ExecuteCall | CompensateCall) -> BarrierRow | None:
        """`BarrierUnit.lock_row`, waiting less than the time left. A call whose time is over is not begun: it raises LockWaitError."""
        wait_s = self.wait_s(call)
        if wait_s <= 0:
            raise LockWaitError(f"the time of key {call.key} was over before its turn came")
        return await unit.lock_row(fresh, wait_s)

    async def repeated(self, call: ExecuteCall | CompensateCall, attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT | OwnAnswer:
        """Runs `attempt`, a whole database transaction, again while the database asks for it (R22).

        After a COMMIT in doubt the repetition reads the row first, like every attempt, and so replays what was committed; if
        that never succeeds, the answer is that nobody knows, and not that nothing happened.
        """
        in_doubt = False
        for _ in range(REPEATS_MAX):
            try:
                return await attempt()
            except CommitInDoubtError as error:
                in_doubt = True
                logger.warning("COMMIT for key %s is in doubt, reading its row again: %s", call.key, error)
            except StoreBusyError as error:
                logger.debug("database busy for key %s: %s", call.key, error)
                if self.wait_s(call) <= 0:
                    break
            except LockWaitError:
                break
            except StoreUnavailableError as error:
                return answers.unavailable(f"the participant's database cannot be used: {error}")
            except HandlerWriteError as error:
                logger.exception("what %s wrote cannot be stored", call.action)
                return answers.outcome_unknown(f"what {call.action} wrote cannot be stored: {error}")
            except (ParticipantSetupError, SessionMisusedError) as error:
                logger.exception("key %s cannot be guarded", call.key)
                return status_with(grpc.StatusCode.INTERNAL, str(error))
        if in_doubt:
            return answers.outcome_unknown(f"the COMMIT for key {call.key} is in doubt and its row cannot be read")
        return answers.busy(call, BUSY_DELAY)

    def locked(self, call: ExecuteCall | CompensateCall, verdict: Locked) -> participant_pb2.RetryLater:
        """Call again when the other attempt must have ended."""
        left = timedelta(microseconds=verdict.until_us - self.clock())
        return answers.locked(call, min(max(left, LOCKED_DELAY_MIN), LOCKED_DELAY_MAX))

    def refuse_execute(
        self, call: ExecuteCall, verdict: Replay | Sealed | Locked | Expired | Mismatch
    ) -> participant_pb2.ExecuteResponse | OwnAnswer:
        """The answer to a call whose handler is not to run."""
        match verdict:
            case Replay(reply=reply):
                return participant_pb2.ExecuteResponse.FromString(reply)
            case Sealed():
                return answers.sealed_refusal(call)
            case Locked():
                return self.locked(call, verdict)
            case Expired():
                return answers.key_expired(call, self.retention)
            case Mismatch():
                return answers.key_mismatch(call)
