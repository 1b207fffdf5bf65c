"""Sagas as the API shows them: how far they have come, and nothing that is not so."""

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from coordinator.codec.sagas import saga_message, saga_summary, stored_summary
from coordinator.codec.values import to_any, to_timestamp
from coordinator.core.values import Code, Failure, Instant, Payload, SagaStatus
from coordinator.engine.ports import StoredSaga
from saga.v1 import saga_pb2
from tests.builders import (
    DEFINITION,
    FAILED_PRECONDITION,
    INPUT,
    SAGA,
    TRACE,
    Story,
    at,
    compensated,
    output_of,
    rejected,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

Names = dict[str, str]


def shown(story: Story) -> saga_pb2.Saga:
    return saga_message(story.plan, story.state)


def step_statuses(saga: saga_pb2.Saga) -> Names:
    return {one.id: saga_pb2.StepStatus.Name(one.status).removeprefix("STEP_STATUS_") for one in saga.steps}


def when(number: float) -> Timestamp:
    return to_timestamp(at(number))


def test_running_saga_shows_what_is_due_and_what_waits() -> None:
    saga = shown(started(sequence("reserve", "charge"), when=100, limit_s=60))
    assert (saga.id, saga.definition.name, saga.definition.version) == (SAGA, DEFINITION.name, DEFINITION.version)
    assert saga.status == saga_pb2.SAGA_STATUS_RUNNING
    assert saga.input == to_any(INPUT)
    assert (saga.created_at, saga.started_at, saga.deadline) == (when(100), when(100), when(160))
    assert not saga.HasField("ended_at")
    assert not saga.HasField("error")
    assert not saga.HasField("output")
    assert saga.cause == saga_pb2.TURN_BACK_CAUSE_UNSPECIFIED
    assert saga.traceparent == TRACE.traceparent
    assert step_statuses(saga) == {"reserve": "EXECUTING", "charge": "WAITING"}
    due, waiting = saga.steps
    assert due.input == to_any(INPUT)
    assert due.started_at == when(100)
    assert not waiting.HasField("input")
    assert not waiting.HasField("started_at")


def test_pending_saga_has_not_started() -> None:
    story = Story(sequence("reserve"))
    story.start(100, start_at=200, limit_s=60)
    saga = shown(story)
    assert saga.status == saga_pb2.SAGA_STATUS_PENDING
    assert not saga.HasField("started_at")
    assert saga.deadline == when(260)
    assert step_statuses(saga) == {"reserve": "WAITING"}


def test_failed_attempt_shows_its_error_and_when_the_next_one_is_due() -> None:
    story = started(sequence("reserve"))
    story.reply("reserve", unknown(), 1)
    (one,) = shown(story).steps
    (owed,) = story.owed()
    assert one.execute_attempts == 1
    assert one.error == status_pb2.Status(code=Code.UNAVAILABLE, message="said so")
    assert one.next_attempt_at == to_timestamp(owed.not_before)
    assert not one.HasField("ended_at")


def test_completed_saga_shows_its_output_and_no_error_of_the_way() -> None:
    story = started(sequence("reserve", step("charge", input=output_of(0)), output=output_of(1)))
    story.reply("reserve", unknown(), 1)
    story.reply("reserve", succeeded(b"R1"), 2)
    story.reply("charge", succeeded(b"C1"), 3)
    saga = shown(story)
    reserve, charge = saga.steps
    assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert saga.ended_at == when(3)
    assert saga.output.value == b"C1"
    assert (reserve.execute_attempts, reserve.output.value, reserve.ended_at) == (2, b"R1", when(2))
    assert not reserve.HasField("error")
    assert not reserve.HasField("next_attempt_at")
    assert charge.input == to_any(Payload("shop.v1.Done", b"R1"))


def test_compensated_saga_shows_why_it_turned_back() -> None:
    story = started(sequence("reserve", "charge"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(sealed=True), 2)
    story.undo("reserve", compensated(), 3)
    saga = shown(story)
    assert saga.status == saga_pb2.SAGA_STATUS_COMPENSATED
    assert saga.cause == saga_pb2.TURN_BACK_CAUSE_STEP_REJECTED
    assert saga.error.code == FAILED_PRECONDITION
    assert step_statuses(saga) == {"reserve": "COMPENSATED", "charge": "REJECTED"}
    assert (saga.steps[0].compensate_attempts, saga.steps[1].compensate_attempts) == (1, 0)
    assert saga.steps[1].error.code == FAILED_PRECONDITION


def test_summary_is_the_same_without_steps_and_payloads() -> None:
    story = started(sequence("reserve", output=output_of(0)))
    story.reply("reserve", succeeded(), 1)
    whole, summary = shown(story), saga_summary(story.plan, story.state)
    for field in ("input", "output", "steps", "incidents"):
        whole.ClearField(field)
    assert summary == whole


def test_every_status_is_shown_under_its_own_name() -> None:
    for status in SagaStatus:
        stored = stored_summary(row(status))
        assert saga_pb2.SagaStatus.Name(stored.status) == f"SAGA_STATUS_{status.name}"


def row(status: SagaStatus, *, ended_at: Instant | None = None, quarantined: Failure | None = None) -> StoredSaga:
    return StoredSaga(
        saga_id=SAGA,
        definition=DEFINITION,
        fingerprint=b"f" * 32,
        status=status,
        created_at=at(100),
        ended_at=ended_at,
        events=(),
        labels=(("team", "shop"),),
        quarantined=quarantined,
    )


def test_row_of_a_list_shows_what_the_row_holds() -> None:
    expected = saga_pb2.Saga(
        id=SAGA,
        definition=saga_pb2.DefinitionReference(name=DEFINITION.name, version=DEFINITION.version),
        status=saga_pb2.SAGA_STATUS_COMPLETED,
        created_at=when(100),
        ended_at=when(103),
        labels={"team": "shop"},
    )
    assert stored_summary(row(SagaStatus.COMPLETED, ended_at=at(103))) == expected


def test_row_of_a_saga_that_is_set_aside_says_why() -> None:
    saga = stored_summary(row(SagaStatus.RUNNING, quarantined=Failure(Code.INTERNAL, "cannot be read")))
    assert (saga.error.code, saga.error.message) == (Code.INTERNAL, "cannot be read")
