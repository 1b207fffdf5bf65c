"""How a saga went, and what a test expects of that. What is not as expected is told with the saga's whole story, in plain words."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, Self, TypeVar

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from rich.console import Console

from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.timeline import render_saga
from coordinator.cli.wording import instant, plain_name, short_name
from participant_sdk.client import SagaNotCompleted, output_of
from participant_sdk.participant import Participant
from participant_sdk.payloads import Payload, payload_type
from participant_sdk.testing.ledger import Call, order_of
from saga.v1 import saga_pb2

OutputT = TypeVar("OutputT", bound=Payload)
ParticipantT = TypeVar("ParticipantT", bound=Participant)

STORY_COLUMNS: Final = 150
"""Width of a story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRun:
    """One saga that came to rest: it ended, or it needs a person. The methods that begin with `then_` raise AssertionError with its story
    if it went otherwise, and return it, so that they can be written one after the other.
    """

    saga: saga_pb2.Saga
    """As the coordinator tells it."""
    events: Sequence[saga_pb2.Event]
    """Its whole history."""
    calls: Sequence[Call]
    """What arrived at its participants, in that order."""
    descriptors: FileDescriptorSet
    """Its message types."""
    now: datetime
    """Virtual time when it was looked at."""
    participants: Sequence[Participant] = ()
    """Those that were served, stubs aside."""

    @property
    def id(self) -> str:
        """Of the saga."""
        return self.saga.id

    @property
    def status(self) -> str:
        """How it stands: "COMPLETED", "COMPENSATED", "FAILED"."""
        return short_name(saga_pb2.SagaStatus, self.saga.status, "SAGA_STATUS_")

    @property
    def order(self) -> list[str]:
        """What was called, in the order of the first attempts: ["reserve", "charge", "undo reserve"]."""
        return order_of(self.calls)

    @property
    def took(self) -> timedelta:
        """From its acceptance to its end, or until now if it has none."""
        ended = instant(self.saga.ended_at) if self.saga.HasField("ended_at") else self.now
        return ended - instant(self.saga.created_at)

    @property
    def open_incidents(self) -> list[saga_pb2.Incident]:
        """What a person is needed for."""
        return [incident for incident in self.saga.incidents if not incident.HasField("closed_at")]

    def output(self, output_type: type[OutputT]) -> OutputT:
        """What it returned. Raises TypeError if that is nothing, or of another type."""
        return output_of(self.saga, output_type)

    def participant(self, kind: type[ParticipantT]) -> ParticipantT:
        """The participant of that class, to look at what it keeps. Raises LookupError if none was served."""
        found = next((each for each in self.participants if isinstance(each, kind)), None)
        if found is None:
            raise LookupError(f"no {kind.__name__} was served in this world")
        return found

    def attempts_of(self, name: str) -> int:
        """How often a step was called, or "undo" and a step, repeated copies included."""
        return sum(call.name == name for call in self.calls)

    def story(self) -> str:
        """What happened, event by event, and what arrived at the participants."""
        text = io.StringIO()
        console = Console(file=text, width=STORY_COLUMNS, color_system=None, force_terminal=False)
        console.print(render_saga(self.saga, self.events, now=self.now, types=PayloadTypes(self.descriptors)))
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines, "", "calls that arrived at participants:", *(f"  {call}" for call in self.calls)])

    # ── Expectations ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def then_completed(self, output: Payload | None = None) -> Self:
        """It is COMPLETED; and returned that, if it is said."""
        self._expect_status(saga_pb2.SAGA_STATUS_COMPLETED)
        return self if output is None else self.then_output(output)

    def then_compensated(self, *, because: str = "", at: str = "") -> Self:
        """It is COMPENSATED; if it is said, by a rejection with that reason, or by a cause such as "TIME_LIMIT", and at that step."""
        self._expect_status(saga_pb2.SAGA_STATUS_COMPENSATED)
        ended = SagaNotCompleted(self.saga)
        if because and because not in (ended.reason, short_name(saga_pb2.TurnBackCause, ended.cause, "TURN_BACK_CAUSE_")):
            self._unexpected(f"it turned back because of {because}", f"because of {ended.reason or ended}")
        if at and at != ended.failed_step:
            self._unexpected(f"it turned back at step {at}", f"at {ended.failed_step or 'no step'}")
        return self

    def then_needs_person(self, *, step: str = "", kind: str = "") -> Self:
        """An incident is open; about that step and of that kind, such as "STEP_REJECTED", if it is said."""
        found = [(each.step_id, short_name(saga_pb2.IncidentKind, each.kind, "INCIDENT_KIND_")) for each in self.open_incidents]
        if not any(step in ("", of_step) and kind in ("", of_kind) for of_step, of_kind in found):
            shown = ", ".join(f"{of_kind} at {of_step or 'the saga'}" for of_step, of_kind in found) or "none"
            self._unexpected(f"an open incident {kind}{f' at {step}' if step else ''}", shown)
        return self

    def then_needs_nobody(self) -> Self:
        """No incident is open."""
        if self.open_incidents:
            kinds = ", ".join(plain_name(saga_pb2.IncidentKind, each.kind, "INCIDENT_KIND_") for each in self.open_incidents)
            self._unexpected("no open incident", kinds)
        return self

    def then_output(self, output: Payload) -> Self:
        """It returned that."""
        if not self.saga.HasField("output"):
            self._unexpected(f"the output {_shown(output)}", "none")
        expected = payload_type(type(output))
        if not expected.is_in(self.saga.output):
            self._unexpected(f"an output of type {expected.name}", self.saga.output.TypeName())
        found = expected.unpack(self.saga.output)
        if found != output:
            self._unexpected(f"the output {_shown(output)}", _shown(found))
        return self

    def then_called(self, *names: str | set[str]) -> Self:
        """Exactly these were called, in this order of their first attempts: steps, and "undo" with a step for what undoes it. A set of
        names stands for calls in any order, such as parallel steps.
        """
        rest = self.order
        for expected in names:
            group = {expected} if isinstance(expected, str) else expected
            if set(rest[: len(group)]) != group:
                self._unexpected(f"calls {_shown_order(names)}", ", ".join(self.order) or "none")
            rest = rest[len(group) :]
        if rest:
            self._unexpected(f"calls {_shown_order(names)} and no more", ", ".join(self.order))
        return self

    def then_not_called(self, *names: str) -> Self:
        """None of these was called."""
        if called := [name for name in names if name in self.order]:
            self._unexpected(f"no call of {', '.join(names)}", f"{', '.join(called)}, called")
        return self

    def then_attempts(self, name: str, times: int) -> Self:
        """A call arrived exactly so often."""
        if (found := self.attempts_of(name)) != times:
            self._unexpected(f"{times} calls of {name}", str(found))
        return self

    def _expect_status(self, status: saga_pb2.SagaStatus.ValueType) -> None:
        if self.saga.status != status:
            self._unexpected(f"the saga {short_name(saga_pb2.SagaStatus, status, 'SAGA_STATUS_')}", self.status)

    def _unexpected(self, expected: str, found: Any) -> NoReturn:
        raise AssertionError(f"expected {expected}, found {found}\n\n{self.story()}")


def _shown(value: Payload) -> str:
    return f"{value.DESCRIPTOR.name}({' '.join(str(value).split())})" if isinstance(value, Message) else repr(value)


def _shown_order(names: Sequence[str | set[str]]) -> str:
    return ", ".join(name if isinstance(name, str) else f"{{{', '.join(sorted(name))}}}" for name in names) or "of nothing"
