"""The barrier's verdict: every state of a row against every call (R18-R22, R24)."""

from dataclasses import replace

import pytest

from participant_sdk.barrier.transitions import (
    accepted,
    fresh_compensation,
    fresh_execution,
    rejected,
    succeeded,
    taken_over,
    undoing,
    undone,
    unlocked,
)
from participant_sdk.barrier.verdict import (
    BarrierRow,
    CompensateCall,
    CompensateVerdict,
    Complete,
    CompletionCall,
    CompletionVerdict,
    ExecuteCall,
    ExecuteVerdict,
    Expired,
    Knowledge,
    Locked,
    Mismatch,
    NotAccepted,
    NothingToUndo,
    OutputSource,
    Replay,
    Run,
    Sealed,
    StepIdentity,
    Undo,
    Undone,
    is_still_mine,
    judge_compensate,
    judge_completion,
    judge_execute,
)
from participant_sdk.effects import EXTERNAL

NOW_US = 1_000_000_000
RETENTION_US = 1_000_000
DEADLINE_US = NOW_US + 10_000
STEP = StepIdentity(saga_id="saga", step_id="reserve")

EXECUTE = ExecuteCall(
    key="key",
    step=STEP,
    action="inventory.reserve",
    fingerprint=b"f",
    effect=EXTERNAL,
    first_attempt_at_us=NOW_US,
    deadline_us=DEADLINE_US,
)
UNKNOWN = CompensateCall(
    key="key",
    step=STEP,
    action="inventory.reserve",
    fingerprint=b"f",
    effect=EXTERNAL,
    first_attempt_at_us=NOW_US,
    deadline_us=DEADLINE_US,
    knowledge=Knowledge.UNKNOWN,
)
COMPLETION = CompletionCall(key="key", step=STEP, token="token", wait_s=0)
CLAIMED = replace(UNKNOWN, knowledge=Knowledge.SUCCEEDED)

STARTED = fresh_execution(EXECUTE, NOW_US)
STARTED_AND_OVER = unlocked(STARTED, NOW_US)
SUCCEEDED = succeeded(STARTED, b"reply", NOW_US)
REJECTED = rejected(STARTED, b"no", NOW_US)
ACCEPTED = accepted(STARTED, b"later", "token", NOW_US)
NULL_COMPENSATED = fresh_compensation(UNKNOWN, NOW_US)
UNDOING_UNKNOWN = undoing(STARTED, UNKNOWN, NOW_US)
UNDOING_UNKNOWN_AND_OVER = unlocked(UNDOING_UNKNOWN, NOW_US)
UNDOING_SUCCESS_AND_OVER = unlocked(undoing(SUCCEEDED, UNKNOWN, NOW_US), NOW_US)
UNDOING_CLAIMED_AND_OVER = unlocked(fresh_compensation(CLAIMED, NOW_US), NOW_US)
UNDOING_ACCEPTED_AND_OVER = unlocked(undoing(ACCEPTED, UNKNOWN, NOW_US), NOW_US)
UNDONE = undone(undoing(SUCCEEDED, UNKNOWN, NOW_US), NOW_US, handler_ran=True)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (None, Run(is_first=True)),
        (STARTED, Locked(until_us=DEADLINE_US)),
        (STARTED_AND_OVER, Run(is_first=False)),
        (SUCCEEDED, Replay(reply=b"reply")),
        (REJECTED, Replay(reply=b"no")),
        (ACCEPTED, Replay(reply=b"later")),
        (succeeded(ACCEPTED, b"reply", NOW_US), Replay(reply=b"reply")),
        (UNDOING_ACCEPTED_AND_OVER, Sealed()),
        (NULL_COMPENSATED, Sealed()),
        (UNDOING_UNKNOWN, Sealed()),
        (UNDOING_UNKNOWN_AND_OVER, Sealed()),
        (UNDOING_SUCCESS_AND_OVER, Sealed()),
        (UNDONE, Sealed()),
        (undone(REJECTED, NOW_US, handler_ran=False), Sealed()),
    ],
)
def test_execute_is_judged_by_its_row(row: BarrierRow | None, verdict: ExecuteVerdict) -> None:
    assert judge_execute(row, EXECUTE, now_us=NOW_US, retention_us=RETENTION_US) == verdict


@pytest.mark.parametrize(
    ("row", "when_unknown", "when_claimed"),
    [
        (None, NothingToUndo(), Undo(source=OutputSource.CLAIMED)),
        (STARTED, Locked(until_us=DEADLINE_US), Locked(until_us=DEADLINE_US)),
        (STARTED_AND_OVER, Undo(source=OutputSource.MISSING), Undo(source=OutputSource.CLAIMED)),
        (SUCCEEDED, Undo(source=OutputSource.STORED), Undo(source=OutputSource.STORED)),
        (REJECTED, NothingToUndo(), Undo(source=OutputSource.CLAIMED)),
        (ACCEPTED, Undo(source=OutputSource.MISSING), Undo(source=OutputSource.CLAIMED)),
        (succeeded(ACCEPTED, b"reply", NOW_US), Undo(source=OutputSource.STORED), Undo(source=OutputSource.STORED)),
        (UNDOING_ACCEPTED_AND_OVER, Undo(source=OutputSource.MISSING), Undo(source=OutputSource.CLAIMED)),
        (NULL_COMPENSATED, Undone(handler_ran=False), Undone(handler_ran=False)),
        (UNDOING_UNKNOWN, Locked(until_us=DEADLINE_US), Locked(until_us=DEADLINE_US)),
        (UNDOING_UNKNOWN_AND_OVER, Undo(source=OutputSource.MISSING), Undo(source=OutputSource.CLAIMED)),
        (UNDOING_SUCCESS_AND_OVER, Undo(source=OutputSource.STORED), Undo(source=OutputSource.STORED)),
        (UNDOING_CLAIMED_AND_OVER, Undo(source=OutputSource.MISSING), Undo(source=OutputSource.CLAIMED)),
        (UNDONE, Undone(handler_ran=True), Undone(handler_ran=True)),
    ],
)
def test_compensate_is_judged_by_its_row_and_what_the_coordinator_knows(
    row: BarrierRow | None, when_unknown: CompensateVerdict, when_claimed: CompensateVerdict
) -> None:
    assert judge_compensate(row, UNKNOWN, now_us=NOW_US, retention_us=RETENTION_US) == when_unknown
    assert judge_compensate(row, CLAIMED, now_us=NOW_US, retention_us=RETENTION_US) == when_claimed


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (None, NotAccepted()),
        (STARTED, NotAccepted()),
        (STARTED_AND_OVER, NotAccepted()),
        (ACCEPTED, Complete()),
        (accepted(STARTED, b"later", "another token", NOW_US), Mismatch()),
        (SUCCEEDED, Replay(reply=b"reply")),
        (REJECTED, Replay(reply=b"no")),
        (NULL_COMPENSATED, Sealed()),
        (UNDOING_UNKNOWN, Sealed()),
        (UNDOING_ACCEPTED_AND_OVER, Sealed()),
        (undone(ACCEPTED, NOW_US, handler_ran=True), Sealed()),
        (UNDOING_SUCCESS_AND_OVER, Sealed()),
        (UNDONE, Sealed()),
        (undone(REJECTED, NOW_US, handler_ran=False), Sealed()),
    ],
)
def test_completion_is_judged_by_its_row_and_its_token(row: BarrierRow | None, verdict: CompletionVerdict) -> None:  # R24
    assert judge_completion(row, COMPLETION) == verdict


def test_row_of_an_accepted_step_does_not_hold_its_token() -> None:  # R24: who can read the table cannot complete steps
    assert ACCEPTED.reply is not None
    assert b"token" not in ACCEPTED.reply
    assert "token" not in repr(ACCEPTED) + repr(replace(EXECUTE, completion_token="token")).replace("completion_token", "")


@pytest.mark.parametrize(("age_us", "is_expired"), [(RETENTION_US, False), (RETENTION_US + 1, True)])
def test_key_without_a_row_expires_after_retention(age_us: int, is_expired: bool) -> None:  # R21
    execute = replace(EXECUTE, first_attempt_at_us=NOW_US - age_us)
    compensate = replace(CLAIMED, first_attempt_at_us=NOW_US - age_us)
    assert (judge_execute(None, execute, now_us=NOW_US, retention_us=RETENTION_US) == Expired()) is is_expired
    assert (judge_compensate(None, compensate, now_us=NOW_US, retention_us=RETENTION_US) == Expired()) is is_expired
    assert judge_execute(SUCCEEDED, execute, now_us=NOW_US, retention_us=RETENTION_US) == Replay(reply=b"reply")


@pytest.mark.parametrize("row", [STARTED, ACCEPTED, SUCCEEDED, REJECTED, NULL_COMPENSATED, UNDONE])
@pytest.mark.parametrize("other", [{"fingerprint": b"g"}, {"action": "inventory.release"}])
def test_key_that_was_used_for_something_else_is_a_mismatch(row: BarrierRow, other: dict[str, object]) -> None:  # R22
    execute, compensate = replace(EXECUTE, **other), replace(UNKNOWN, **other)  # type: ignore[arg-type]
    assert judge_execute(row, execute, now_us=NOW_US, retention_us=RETENTION_US) == Mismatch()
    assert judge_compensate(row, compensate, now_us=NOW_US, retention_us=RETENTION_US) == Mismatch()


def test_lock_ends_at_its_very_instant() -> None:
    assert judge_execute(STARTED, EXECUTE, now_us=DEADLINE_US - 1, retention_us=RETENTION_US) == Locked(until_us=DEADLINE_US)
    assert judge_execute(STARTED, EXECUTE, now_us=DEADLINE_US, retention_us=RETENTION_US) == Run(is_first=False)


def test_attempt_that_takes_over_gets_a_later_lock_even_if_its_deadline_is_earlier() -> None:
    hasty = replace(EXECUTE, deadline_us=NOW_US + 1)
    next_row = taken_over(STARTED, hasty, NOW_US)
    assert next_row.locked_until_us > STARTED.locked_until_us
    assert not is_still_mine(next_row, STARTED)


@pytest.mark.parametrize("other", [None, ACCEPTED, SUCCEEDED, UNDOING_UNKNOWN, STARTED_AND_OVER, taken_over(STARTED, EXECUTE, DEADLINE_US)])
def test_claim_is_lost_when_anybody_else_wrote_the_row(other: BarrierRow | None) -> None:
    assert is_still_mine(STARTED, STARTED)
    assert not is_still_mine(other, STARTED)


def test_claim_of_a_compensation_is_lost_to_the_next_one() -> None:
    next_one = undoing(UNDOING_UNKNOWN, UNKNOWN, DEADLINE_US)
    assert is_still_mine(UNDOING_UNKNOWN, UNDOING_UNKNOWN)
    assert not is_still_mine(next_one, UNDOING_UNKNOWN)


def test_stored_state_without_a_reply_is_told_as_damage() -> None:
    with pytest.raises(ValueError, match="changed by hand"):
        judge_execute(replace(SUCCEEDED, reply=None), EXECUTE, now_us=NOW_US, retention_us=RETENTION_US)
