"""What log lines look like, and which facts make one."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.events import StepDue
from coordinator.core.inputs import (
    Accepted,
    Cancel,
    ChangePolicy,
    Command,
    CompleteStep,
    Heartbeat,
    Pause,
    PolicyChange,
    ResolvedSkipped,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
)
from coordinator.core.plan import ExpressionError, RetryPolicy, SagaPlan, Values
from coordinator.core.trace import attempt_span_id, completion_span_id, root_span_id, start_trace
from coordinator.core.values import Payload, StepId, StepKind
from coordinator.telemetry.log_observer import LogObserver
from coordinator.telemetry.logs import OWN_LOGGERS, JsonFormatter, configure_logging
from coordinator.telemetry.names import LOGGER_SAGAS
from tests.builders import COMPENSATE, SAGA, attempt, compensated, not_sent, rejected, seconds, sequence, step, succeeded, unknown
from tests.unit.telemetry.lives import PLANS, Happening, happenings, live_through
from tests.unit.telemetry.observed import Observed

CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
Line = dict[str, object]


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, OWN_LOGGERS))}
    handlers = list(root.handlers)
    yield
    for logger, level in levels.items():
        logger.setLevel(level)
    root.handlers[:] = handlers


class Written:
    """What was logged since logging was configured."""

    def __init__(self, level: str, log_format: Literal["json", "text"] = "json") -> None:
        self._stream = io.StringIO()
        configure_logging(level, log_format, stream=self._stream)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.text.splitlines()]


def fail_to_undo(saga: Observed) -> None:
    """Turns back and ends FAILED with an incident; the plan allows one attempt to compensate `a`."""
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.reply("b", rejected(), sent=2, ended=2)
    saga.reply("a", unknown(), sent=3, ended=3, direction=COMPENSATE)


def frail() -> Observed:
    return Observed(sequence(step("a", undo=RetryPolicy(attempts_max=1)), "b"), LogObserver())


# ── Formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_line_has_the_fields_of_extra() -> None:
    written = Written("info")
    logging.getLogger("coordinator.engine").info("saga %s", "gone", extra={"saga.id": SAGA, "saga.attempt": 3, "odd": {1}})
    (line,) = written.lines
    instant = line.pop("ts")
    assert isinstance(instant, str)
    assert instant.endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "coordinator.engine",
        "message": "saga gone",
        "saga.id": SAGA,
        "saga.attempt": 3,
        "odd": "{1}",
    }


def test_json_line_carries_an_exception_as_one_field() -> None:
    written = Written("info")
    logging.getLogger("coordinator.engine").error("it broke", exc_info=ValueError("two\nlines"))
    (line,) = written.lines
    assert line["exception"] == "ValueError: two\nlines"


def test_json_line_is_ascii_and_one_line_whatever_is_said() -> None:
    said = 'two\nlines "é" \u2028 \ud800'
    # Not through a logger: pytest would capture a text that cannot be encoded, and could not hand it on.
    line = JsonFormatter().format(logging.makeLogRecord({"msg": said, "levelname": "INFO", "name": "coordinator.engine"}))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == said


def test_text_line_shows_fields_behind_the_message() -> None:
    written = Written("info", "text")
    logging.getLogger("coordinator.engine").warning("late", extra={"saga.id": SAGA, "error.message": 'card "9" declined', "empty": ""})
    _, _, rest = written.text.partition("Z ")
    assert rest == f'WARNING coordinator.engine: late saga.id={SAGA} error.message="card \\"9\\" declined" empty=""\n'


def test_text_line_cannot_be_forged_by_what_a_participant_says() -> None:
    written = Written("info", "text")
    forged = "no\n2026-01-01T00:00:00.000Z ERROR   coordinator: forged\x1b[31m"
    logging.getLogger("coordinator.engine").error("said %s", forged, extra={"error.message": forged}, exc_info=ValueError(forged))
    first, *others = written.text.splitlines()
    assert "\x1b" not in first
    assert others
    assert all(line.startswith("    ") for line in others)


def test_configuring_again_replaces_what_was_set_before() -> None:
    first, second = Written("debug"), Written("warning", "text")
    logging.getLogger("coordinator.engine").info("unheard")
    logging.getLogger("coordinator.engine").warning("heard")
    assert (first.text, second.text.count("\n")) == ("", 1)


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="chatty"):
        configure_logging("chatty", "json", stream=io.StringIO())


def test_libraries_are_not_heard_below_warning() -> None:
    written = Written("debug")
    logging.getLogger("aiosqlite").debug("executing with parameters")
    logging.getLogger("alembic").info("migrating")
    logging.getLogger("alembic").warning("cannot migrate")
    assert [line["message"] for line in written.lines] == ["cannot migrate"]


# ── What happens to sagas ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saga_that_goes_well_is_silent_at_info() -> None:
    written = Written("info")
    saga = Observed(sequence("a"), LogObserver())
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    assert not written.lines


def test_saga_that_fails_is_told_at_info_with_the_incident_as_a_warning() -> None:
    written = Written("info")
    fail_to_undo(frail())
    assert [(line["level"], line["message"]) for line in written.lines] == [
        ("INFO", "saga turned back"),
        ("WARNING", "incident opened: a person is needed"),
        ("WARNING", "saga failed: it cannot move without a person"),
    ]


def test_saga_that_was_undone_after_a_crash_is_told_at_info() -> None:
    written = Written("info")
    saga = Observed(sequence("a", "b"), LogObserver())
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.recover(2)
    saga.reply("b", rejected(sealed=True), sent=3, ended=3)
    saga.reply("a", compensated(), sent=4, ended=4, direction=COMPENSATE)
    assert [line["message"] for line in written.lines] == ["saga recovered", "saga turned back", "saga compensated"]


def test_line_of_an_attempt_has_every_id() -> None:
    written = Written("debug")
    fail_to_undo(frail())
    (line,) = [line for line in written.lines if line["message"] == "step rejected"]
    del line["ts"]
    assert line == {
        "level": "DEBUG",
        "logger": LOGGER_SAGAS,
        "message": "step rejected",
        "saga.id": SAGA,
        "saga.definition.name": "place-order",
        "saga.definition.version": 1,
        "saga.step": "b",
        "saga.attempt": 1,
        "saga.round": 1,
        "saga.direction": "EXECUTE",
        "saga.action": "b.do",
        "saga.outcome": "REJECTED",
        "error.type": "FAILED_PRECONDITION",
        "error.message": "said so",
        "trace_id": CALLER_TRACE,
        "span_id": f"{attempt_span_id(SAGA, attempt('b', 1)):016x}",
    }


def test_line_of_an_attempt_without_span_names_that_of_the_saga() -> None:
    written = Written("debug")
    saga = Observed(sequence("a"), LogObserver())
    saga.start()
    saga.reply("a", not_sent(), sent=1, ended=1)
    (line,) = [line for line in written.lines if line["message"] == "attempt failed"]
    assert (line["saga.outcome"], line["span_id"]) == ("NOT_SENT", f"{root_span_id(SAGA):016x}")


def test_story_has_a_line_per_fact_at_debug() -> None:
    written = Written("debug")
    fail_to_undo(frail())
    saga = Observed(sequence("a", "b"), LogObserver())
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=1)
    saga.reply("b", rejected(), sent=1, ended=1)
    saga.reply("a", compensated(handler_ran=False), sent=1, ended=1, direction=COMPENSATE)
    told = [line["message"] for line in written.lines]
    assert told == [
        "saga started",
        "step succeeded",
        "step rejected",
        "saga turned back",
        "step compensation failed",
        "incident opened: a person is needed",
        "saga failed: it cannot move without a person",
        "saga started",
        "step succeeded",
        "step rejected",
        "saga turned back",
        "step compensated",
        "saga compensated",
    ]


def test_what_persons_do_is_told_at_info_with_actor_and_reason() -> None:
    written = Written("info")
    saga = frail()
    fail_to_undo(saga)
    told = len(written.lines)
    saga.feed(RetryStep(step_id=StepId("a"), reason="because", actor="bob"), 100)
    retried, closed = written.lines[told:]
    by_bob = {"saga.actor": "bob", "saga.reason": "because"}
    expected = {"level": "INFO", "message": "step retried", "saga.step": "a", "saga.direction": "COMPENSATE", "saga.round": 1} | by_bob
    assert expected.items() <= retried.items()
    assert {"level": "INFO", "message": "incident closed", "saga.incident.id": 1}.items() <= closed.items()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Pause(), "saga paused"),
        (Terminate(), "saga terminated"),
        (Cancel(), "saga turned back"),
        (ChangePolicy(step_id=StepId("a"), change=PolicyChange(attempt_timeout_us=1)), "step policy changed"),
    ],
)
def test_command_of_a_person_is_heard_at_info(command: Command, message: str) -> None:
    written = Written("info")
    saga = Observed(sequence("a"), LogObserver())
    saga.start()
    saga.feed(command, 1)
    assert written.lines[0]["message"] == message


def test_repair_by_a_person_is_heard_at_info() -> None:
    def fails(_: Values) -> Payload:
        raise ExpressionError("no such field")

    saga = Observed(sequence(step("a", kind=StepKind.RETRIABLE), output=fails), LogObserver())
    saga.start()
    saga.feed(Pause(), 1)
    saga.reply("a", rejected(), sent=1, ended=1)
    written = Written("info")
    saga.feed(Resume(reason="because", actor="bob"), 2)
    saga.feed(ResolveStep(step_id=StepId("a"), resolution=ResolvedSkipped(), reason="because", actor="bob"), 3)
    saga.feed(ResolveOutput(output=Payload("t", b"secret"), reason="because", actor="bob"), 4)
    by_bob = [line["message"] for line in written.lines if line.get("saga.actor") == "bob" and line["saga.reason"] == "because"]
    assert by_bob == ["saga resumed", "step resolved", "output resolved"]
    assert "secret" not in written.text


def test_wish_to_turn_back_is_heard_at_info() -> None:
    written = Written("info")
    saga = Observed(sequence(step("a", kind=StepKind.PIVOT)), LogObserver())
    saga.start()
    saga.reply("a", Accepted(time_limit_us=seconds(60)), sent=1, ended=1)
    saga.feed(Cancel(actor="bob"), 2)  # R10
    assert [(line["message"], line["saga.actor"]) for line in written.lines] == [("turning back requested", "bob")]


def test_step_that_cannot_be_executed_is_heard_at_info_and_one_that_is_left_out_is_not() -> None:
    def fails(_: Values) -> Payload:
        raise ExpressionError("no such field")

    written = Written("info")
    optional = step("a", kind=StepKind.BEST_EFFORT, when=lambda _: False)
    saga = Observed(sequence(optional, step("b", kind=StepKind.BEST_EFFORT, input=fails, copies_input=False), "c"), LogObserver())
    saga.start()
    (line,) = written.lines
    assert (line["message"], line["saga.step"], line["error.message"]) == ("step cannot be executed", "b", "no such field")


def test_late_outcome_is_heard_at_info() -> None:
    written = Written("info")
    saga = Observed(sequence("a"), LogObserver())
    saga.start()
    saga.feed(Terminate(), 1)
    saga.reply("a", succeeded(b"secret"), sent=0.5, ended=2)
    late = written.lines[-1]
    assert {
        "message": "late outcome",
        "level": "INFO",
        "saga.step": "a",
        "saga.outcome": "SUCCEEDED",
        "saga.late": True,
    }.items() <= late.items()
    assert late["span_id"] == f"{attempt_span_id(SAGA, attempt('a', 1)):016x}"


def test_accepted_step_is_told_with_its_limit_and_its_completion_with_its_span() -> None:
    written = Written("debug")
    saga = Observed(sequence("a"), LogObserver())
    saga.start()
    saga.reply("a", Accepted(time_limit_us=seconds(60)), sent=1, ended=2)
    saga.feed(Heartbeat(step_id=StepId("a"), round=1, time_limit_us=None, progress=Payload("t", b"secret")), 40)
    saga.feed(CompleteStep(step_id=StepId("a"), round=1, result=succeeded()), 50)
    _, accepted, beat, completed, _ = written.lines
    assert (accepted["message"], accepted["saga.accepted_until"]) == ("step accepted", "1970-01-01T00:01:02.000Z")
    assert (beat["message"], beat["saga.step"], beat["saga.accepted_until"]) == ("step still under way", "a", "1970-01-01T00:01:40.000Z")
    assert completed["span_id"] == f"{completion_span_id(SAGA, attempt('a', 1)):016x}"
    assert "secret" not in written.text


@given(st.sampled_from(PLANS), happenings)
def test_any_story_has_a_line_per_fact_and_per_step_that_is_not_executed(plan: SagaPlan, story: list[Happening]) -> None:
    written = Written("debug")
    journal = live_through(plan, story, LogObserver()).saga.story.journal
    not_executed = [one for event in journal for one in event.reached if not isinstance(one, StepDue)]
    assert len(written.lines) == len(journal) + len(not_executed)
    assert all(line["message"] and line["saga.id"] == SAGA for line in written.lines)


def test_payloads_are_never_written() -> None:
    written = Written("debug")
    saga = Observed(sequence("a"), LogObserver())
    saga.start(trace=start_trace(SAGA, "", "", sample=False))
    saga.reply("a", succeeded(b"secret"), sent=1, ended=1)
    assert written.lines
    assert "secret" not in written.text
    assert "order-42" not in written.text
