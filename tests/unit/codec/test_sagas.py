"""Sagas as the API shows them: how far they have come, and nothing that is not so."""

from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from coordinator.codec.sagas import (
    PAYLOAD_BYTES_SHOWN_MAX,
    quarantined_message,
    saga_message,
    saga_outcome,
    saga_summary,
    saga_without_payloads,
    stored_incident_message,
    stored_summary,
)
from coordinator.codec.values import to_any, to_timestamp
from coordinator.core.inputs import Accepted, CompleteStep, Heartbeat, Pause, ResolvedSucceeded, ResolveStep, Resume, RetryStep, Terminate
from coordinator.core.plan import ON_SUCCESS, RetryPolicy
from coordinator.core.values import Code, Failure, IncidentKind, Instant, Payload, SagaStatus, StepId, StepKind
from coordinator.engine.ports import StoredIncident, StoredSaga
from saga.v1 import operator_pb2, saga_pb2
from tests.builders import (
    DEFINITION,
    FAILED_PRECONDITION,
    INPUT,
    SAGA,
    TRACE,
    Story,
    at,
    compensated,
    fails,
    hook,
    never,
    output_of,
    parallel,
    rejected,
    seconds,
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
    for field in ("input", "output", "steps", "incidents", "hook"):
        whole.ClearField(field)
    assert summary == whole


def test_outcome_of_a_completed_saga_leaves_out_its_input_and_steps_and_nothing_else() -> None:
    plan = replace(sequence("reserve", output=output_of(0)), on_success=hook(ON_SUCCESS))
    story = started(plan)
    assert saga_outcome(story.plan, story.state) == shown(story)  # it has not completed
    story.reply("reserve", succeeded(b"R1"), 1)
    expected = shown(story)
    expected.ClearField("input")
    expected.ClearField("steps")
    assert expected.HasField("hook")
    assert saga_outcome(story.plan, story.state) == expected


def test_every_status_is_shown_under_its_own_name() -> None:
    for status in SagaStatus:
        stored = stored_summary(row(status))
        assert saga_pb2.SagaStatus.Name(stored.status) == f"SAGA_STATUS_{status.name}"


def row(
    status: SagaStatus,
    *,
    ended_at: Instant | None = None,
    quarantined: Failure | None = None,
    is_paused: bool = False,
    needs_person: bool = False,
) -> StoredSaga:
    return StoredSaga(
        saga_id=SAGA,
        definition=DEFINITION,
        fingerprint=b"f" * 32,
        status=status,
        created_at=at(100),
        ended_at=ended_at,
        is_paused=is_paused,
        needs_person=needs_person or quarantined is not None,
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
    assert (saga.error.code, saga.error.message, saga.needs_person) == (Code.INTERNAL, "cannot be read", True)


def test_saga_that_is_set_aside_shows_an_incident() -> None:
    failure = Failure(Code.INTERNAL, "cannot be read")
    (incident,) = quarantined_message(row(SagaStatus.RUNNING, quarantined=failure), failure).incidents
    assert (incident.id, incident.kind, incident.error.message) == (0, saga_pb2.INCIDENT_KIND_QUARANTINED, "cannot be read")


def test_row_of_a_paused_saga_shows_that_it_is() -> None:
    assert stored_summary(row(SagaStatus.RUNNING, is_paused=True)).HasField("paused")
    assert not stored_summary(row(SagaStatus.RUNNING)).HasField("paused")


def test_row_says_whether_a_person_is_needed() -> None:
    assert stored_summary(row(SagaStatus.RUNNING, needs_person=True)).needs_person
    assert not stored_summary(row(SagaStatus.FAILED, ended_at=at(3))).needs_person


# ── What persons and participants do ─────────────────────────────────────────────────────────────────────────────────────────────


def test_paused_saga_shows_who_paused_it_and_promises_no_attempt() -> None:
    story = started(sequence("reserve"))
    story.reply("reserve", unknown(), 1)
    story.feed(Pause(actor="ann", reason="audit"), 1.01)
    saga = shown(story)
    assert saga.paused == saga_pb2.PersonAction(actor="ann", reason="audit", occurred_at=when(1.01))
    assert not saga.steps[0].HasField("next_attempt_at")
    story.feed(Resume(), 2)
    assert not shown(story).HasField("paused")


def test_accepted_step_shows_its_time_and_its_progress() -> None:
    story = started(sequence("approve"))
    story.reply("approve", Accepted(time_limit_us=seconds(60)), 1)
    progress = Payload("shop.v1.Progress", b"half")
    story.feed(Heartbeat(step_id=StepId("approve"), round=1, time_limit_us=seconds(90), progress=progress), 2)
    (one,) = shown(story).steps
    assert (one.status, one.accepted_until, one.progress, one.round) == (saga_pb2.STEP_STATUS_ACCEPTED, when(92), to_any(progress), 1)
    story.feed(CompleteStep(step_id=StepId("approve"), round=1, result=succeeded()), 3)
    (one,) = shown(story).steps
    assert (one.status, one.HasField("accepted_until")) == (saga_pb2.STEP_STATUS_SUCCEEDED, False)


def test_resolved_step_shows_who_said_how_it_ended() -> None:
    story = started(sequence(step("charge", kind=StepKind.PIVOT, retry=RetryPolicy(attempts_max=1))))
    story.reply("charge", unknown(), 1)
    before = shown(story)
    assert (before.status, before.needs_person) == (saga_pb2.SAGA_STATUS_FAILED, True)
    assert not before.incidents[0].HasField("closed_at")
    resolution = ResolvedSucceeded(Payload("shop.v1.Done", b"by hand"))
    story.feed(ResolveStep(step_id=StepId("charge"), resolution=resolution, reason="seen in the books", actor="ann"), 2)
    after = shown(story)
    assert (after.status, after.needs_person) == (saga_pb2.SAGA_STATUS_COMPLETED, False)
    assert after.steps[0].resolved == saga_pb2.PersonAction(actor="ann", reason="seen in the books", occurred_at=when(2))
    assert after.steps[0].output.value == b"by hand"
    assert after.incidents[0].closed_at == when(2)


def test_step_that_was_tried_again_under_another_key_shows_its_round() -> None:
    story = started(sequence(step("charge", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE)))
    story.reply("charge", succeeded(), 1)
    story.reply("ship", rejected(sealed=True), 2)
    other = Payload("shop.v1.ShipTo", b"another street")
    story.feed(RetryStep(step_id=StepId("ship"), input=other), 3)
    ship = shown(story).steps[1]
    assert (ship.round, ship.execute_attempts, ship.input) == (2, 1, to_any(other))


def test_terminated_saga_shows_who_ended_it() -> None:
    story = started(sequence("reserve"))
    story.feed(Terminate(actor="bob", reason="written off"), 1)
    saga = shown(story)
    assert (saga.status, saga.ended_at) == (saga_pb2.SAGA_STATUS_FAILED, when(1))
    assert saga.terminated == saga_pb2.PersonAction(actor="bob", reason="written off", occurred_at=when(1))


def test_wish_to_turn_back_is_shown_while_the_pivot_is_in_doubt() -> None:  # R10
    story = started(sequence(step("charge", kind=StepKind.PIVOT)))
    story.reply("charge", unknown(), 1)
    story.cancel(1.01)
    wish = shown(story).turn_back_requested
    assert (wish.cause, wish.error.message, wish.actor) == (saga_pb2.TURN_BACK_CAUSE_CANCELLED, "changed my mind", "alice")
    story.reply("charge", succeeded(), 2)
    assert shown(story).status == saga_pb2.SAGA_STATUS_COMPLETED


def test_hook_is_shown_apart_from_the_steps() -> None:
    story = started(replace(sequence("reserve"), on_success=hook(ON_SUCCESS)))
    assert not shown(story).HasField("hook")
    story.reply("reserve", succeeded(), 1)
    saga = shown(story)
    assert (saga.hook.id, saga.hook.status, saga.hook.input) == ("on_success", saga_pb2.STEP_STATUS_EXECUTING, to_any(INPUT))
    assert [one.id for one in saga.steps] == ["reserve"]


def test_step_that_was_left_out_or_unfit_shows_why_without_an_attempt() -> None:
    plan = parallel(step("gift", when=never, kind=StepKind.READ_ONLY), step("wrap", input=fails, copies_input=False))
    gift, wrap = shown(started(plan)).steps
    assert (gift.status, gift.round, gift.HasField("error")) == (saga_pb2.STEP_STATUS_SKIPPED, 0, False)
    assert (wrap.status, wrap.execute_attempts, wrap.error.message) == (saga_pb2.STEP_STATUS_REJECTED, 0, "division by zero")


def test_explained_saga_shows_everything_but_payloads() -> None:
    story = started(sequence("reserve", output=output_of(0)))
    story.reply("reserve", succeeded(), 1)
    whole, bare = shown(story), saga_without_payloads(story.plan, story.state)
    assert not bare.payloads_omitted
    for message in (whole, *whole.steps):
        message.ClearField("input")
        message.ClearField("output")
    assert bare == whole


def test_payloads_that_do_not_fit_are_left_out_and_that_is_said() -> None:
    story = started(sequence("reserve"))
    story.reply("reserve", succeeded(b"x" * (PAYLOAD_BYTES_SHOWN_MAX + 1)), 1)
    saga = shown(story)
    assert (saga.payloads_omitted, saga.steps[0].HasField("output"), saga.steps[0].HasField("input")) == (True, False, True)
    assert saga.ByteSize() < 4 * 1024 * 1024


def test_incident_of_a_list_shows_its_saga() -> None:
    stored = StoredIncident(
        saga_id=SAGA,
        definition=DEFINITION,
        status=SagaStatus.FAILED,
        id=2,
        kind=IncidentKind.STEP_REJECTED,
        step_id=StepId("ship"),
        failure=Failure(FAILED_PRECONDITION, "no van"),
        opened_at=at(5),
        closed_at=None,
    )
    expected = operator_pb2.SagaIncident(
        saga_id=SAGA,
        definition=saga_pb2.DefinitionReference(name=DEFINITION.name, version=DEFINITION.version),
        status=saga_pb2.SAGA_STATUS_FAILED,
        incident=saga_pb2.Incident(
            id=2,
            kind=saga_pb2.INCIDENT_KIND_STEP_REJECTED,
            step_id="ship",
            error=status_pb2.Status(code=FAILED_PRECONDITION, message="no van"),
            opened_at=when(5),
        ),
    )
    assert stored_incident_message(stored) == expected
