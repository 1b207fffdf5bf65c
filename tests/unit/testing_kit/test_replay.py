"""Recorded sagas against another definition: what would be decided differently, and what would not."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf.wrappers_pb2 import StringValue

from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.replaying import replay as command
from participant_sdk import RetryPolicy, Saga, StepDefaults
from participant_sdk.testing import Mishap, SagaKit, SagaRun, given, stubs_of
from participant_sdk.testing.faults import CommitFault, Moment
from participant_sdk.testing.plans import definition_of
from participant_sdk.testing.replaying import History, HistoryError, read_histories, replay
from participant_sdk.testing.scenario import live_through
from saga.v1 import saga_pb2

INPUT = StringValue(value="widget")


def plan(
    *steps: str, version: int = 1, when: str = "", retry: RetryPolicy | None = None, source: str = "", limit: timedelta | None = None
) -> Saga[StringValue]:
    saga = Saga("plan", input=StringValue, version=version, defaults=StepDefaults(execute_retry=retry), time_limit=limit)
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        given_source = source if source and is_last else saga.input
        if when and is_last:
            saga.step(f"shop.{step}", given_source, request=StringValue, response=StringValue, when=when)
        else:
            saga.step(f"shop.{step}", given_source, request=StringValue, response=StringValue)
    return saga


OLD = plan("reserve", "charge", "ship")


def history(run: SagaRun) -> History:
    return History(run.saga, run.events)


def recorded() -> History:
    return history(given(OLD, *stubs_of(OLD)).mishap("charge", Mishap.REPLY_LOST).when(INPUT).then_completed())


def test_same_definition_decides_the_same() -> None:
    found = replay(OLD, recorded())
    assert (found.difference, found.timings) == (None, ())
    assert found.agreed == len(found.history.events)
    assert str(found).endswith("(plan v1) against plan v1: the same, 6 events")


def test_step_in_between_is_a_difference() -> None:
    found = replay(plan("reserve", "insure", "charge", "ship", version=2), recorded())
    assert found.difference is not None
    assert (found.agreed, found.difference.sequence) == (1, 2)
    assert (found.difference.recorded, found.difference.now) == ("reserve done → charge", "reserve done → insure")


def test_step_that_is_gone_is_a_difference() -> None:
    found = replay(plan("reserve", "ship", version=2), recorded())
    assert found.difference is not None
    assert found.difference.now == "reserve done → ship"


def test_condition_that_is_false_is_a_difference() -> None:
    found = replay(plan("reserve", "charge", "ship", version=2, when='input == "gold"'), recorded())
    assert found.difference is not None
    assert "saga COMPLETED" in found.difference.recorded or "charge done → ship" in found.difference.recorded
    assert "left out: its condition is false" in found.difference.now


def test_other_input_of_a_step_is_a_difference() -> None:
    found = replay(plan("reserve", "charge", "ship", version=2, source='google.protobuf.StringValue{value: input + "!"}'), recorded())
    assert found.difference is not None
    assert found.difference.now == "charge done → ship, with another input for ship"
    same = replay(plan("reserve", "charge", "ship", version=2, source="google.protobuf.StringValue{value: input}"), recorded())
    assert same.difference is None


def test_other_backoff_is_another_time_and_no_difference() -> None:
    slow = RetryPolicy(initial_backoff=timedelta(seconds=8))
    found = replay(plan("reserve", "charge", "ship", version=2, retry=slow), recorded())
    assert found.difference is None
    assert [(each.sequence, "retry_at +" in each.now) for each in found.timings] == [(3, True)]


def test_giving_up_earlier_is_a_difference() -> None:
    found = replay(plan("reserve", "charge", "ship", version=2, retry=RetryPolicy(max_attempts=1)), recorded())
    assert found.difference is not None
    assert "again in" in found.difference.recorded
    assert "gave up, outcome unknown" in found.difference.now


def test_input_that_the_new_version_does_not_take_is_a_difference() -> None:
    other = Saga("plan", input=type(OLD.definition()), version=2)
    other.step("shop.reserve", "google.protobuf.StringValue{}", request=StringValue, response=StringValue)
    found = replay(other, recorded())
    assert found.difference is not None
    assert "not started: expected a saga.v1.SagaDefinition" in found.difference.now


@pytest.mark.parametrize("refused", ["reserve", "charge", "ship"])
@pytest.mark.parametrize("mishap", [None, *Mishap])
def test_every_course_of_this_release_is_decided_the_same(refused: str, mishap: Mishap | None) -> None:
    world = given(OLD, *stubs_of(OLD)).refusal(refused)
    run = (world if mishap is None else world.mishap("reserve", mishap)).when(INPUT)
    found = replay(OLD, history(run))
    assert (found.difference, found.timings) == (None, ()), f"{found}\n{run.story()}"


def test_what_persons_and_time_did_is_decided_the_same() -> None:
    limited = plan("reserve", "charge", "ship", limit=timedelta(seconds=30))

    async def live() -> list[SagaRun]:
        slow = [each.takes(timedelta(seconds=5)) if each.action == "shop.charge" else each for each in stubs_of(limited)]
        async with SagaKit(*slow) as kit:
            delayed = await kit.start(limited, INPUT, start_at=kit.now + timedelta(hours=1))
            paused = await kit.start(limited, INPUT)
            cancelled = await kit.start(limited, INPUT)
            await kit.advance(timedelta(seconds=1))
            await kit.client.operator.pause(paused.id, reason="lunch", actor="ann")
            await kit.client.cancel(cancelled.id, reason="changed my mind", actor="bob")
            await kit.advance(timedelta(minutes=1))
            await kit.client.operator.resume(paused.id, reason="back", actor="ann")
            return [await kit.wait(each) for each in (delayed, paused, cancelled)]

    runs = live_through(live())
    assert [run.status for run in runs] == ["COMPLETED", "COMPENSATED", "COMPENSATED"]
    for run in runs:
        found = replay(limited, history(run))
        assert found.difference is None, f"{found}\n{run.story()}"


def test_crash_of_the_coordinator_is_decided_the_same() -> None:
    run = given(OLD, *stubs_of(OLD), faults=[CommitFault(2, Moment.DIES_AFTER)]).when(INPUT).then_completed()
    assert any(event.HasField("saga_recovered") for event in run.events)
    assert replay(OLD, history(run)).difference is None


def test_history_that_is_not_complete_is_refused() -> None:
    whole = recorded()
    with pytest.raises(HistoryError, match="expected all events from the first one on"):
        replay(OLD, History(whole.saga, whole.events[1:]))


def test_history_that_was_taken_on_the_way_agrees_as_far_as_it_goes() -> None:
    whole = recorded()
    whole.saga.status = saga_pb2.SAGA_STATUS_RUNNING
    assert replay(OLD, History(whole.saga, whole.events[:3])).difference is None


# ── From files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Two sagas, as `saga show --json` writes them; the second as a command that knew no message types."""
    file, shown = tmp_path / "sagas.json", recorded()
    for types in (PayloadTypes(definition_of(OLD).descriptors), PayloadTypes()):
        content = {"saga": types.to_json(shown.saga), "trace_id": None, "events": [types.to_json(event) for event in shown.events]}
        file.write_text((file.read_text() if file.exists() else "") + json.dumps(content, indent=1) + "\n")
    return file


def definition_file(folder: Path, steps: str) -> Path:
    file = folder / "plan.py"
    file.write_text(
        "from google.protobuf.wrappers_pb2 import StringValue\n"
        "from participant_sdk import Saga\n"
        'plan = Saga("plan", input=StringValue, version=2)\n'
        f"for step in {steps.split()}:\n"
        '    plan.step(f"shop.{step}", request=StringValue, response=StringValue)\n'
    )
    return file


def test_exported_histories_are_read_back(exported: Path) -> None:
    assert [list(each.events) for each in read_histories(exported, definition_of(OLD).descriptors)] == [list(recorded().events)] * 2


def test_command_says_what_would_be_the_same(exported: Path) -> None:
    result = CliRunner().invoke(command, [str(exported), "--with", str(definition_file(exported.parent, "reserve charge ship"))])
    assert (result.exit_code, result.output.count("against plan v2: the same, 6 events")) == (0, 2), result.output


def test_command_says_what_would_differ(exported: Path) -> None:
    file = definition_file(exported.parent, "reserve insure charge ship")
    result = CliRunner().invoke(command, [str(exported), "--with", str(file), "--json"])
    assert result.exit_code == 1
    first = json.loads(result.output.splitlines()[0])
    assert (first["same"], first["difference"]["now"]) == (False, "reserve done → insure")


@pytest.mark.parametrize(("content", "said"), [("{}", "is not what `saga show ID --json` writes"), ("", "holds no saga")])
def test_file_that_is_no_history_is_told(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "sagas.json").write_text(content)
    file = definition_file(tmp_path, "reserve")
    result = CliRunner().invoke(command, [str(tmp_path / "sagas.json"), "--with", str(file)])
    assert result.exit_code == 2
    assert said in result.output
