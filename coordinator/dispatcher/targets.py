"""The places where one participant can be called now, and which of them serves an action as its definition says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from coordinator.codec.participants import find_type_mismatch
from coordinator.core.effects import CallParticipant
from coordinator.core.values import Direction, Instant
from coordinator.dispatcher.lane import Wishes
from saga.v1 import participant_pb2

NEVER: Final = Instant(2**62)
SERVICES_KNOWN_MAX: Final = 10_000
"""Answers that are kept per participant: one per action and the types that definitions of any version name for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place where a participant can be called."""

    address: str
    """gRPC target."""
    description: participant_pb2.ParticipantDescription | None
    """As it registered; None: it only stands in the configuration."""
    told: participant_pb2.ParticipantDescription | None = None
    """What a configured place answered when it was asked last; None: nothing yet. Behind it there may be several replicas, of which one
    answered: so it may serve more than this."""
    told_at: Instant | None = None
    """When `told` was asked for; None: never answered."""
    expires_at: Instant = NEVER

    def can_do(self, action_name: str) -> bool:
        """Whether the action is served there, as far as is known."""
        return self.description is None or any(action.name == action_name for action in self.description.actions)


class Served(NamedTuple):
    """The action is served at these addresses, at least one."""

    addresses: tuple[str, ...]


class Differing(NamedTuple):
    """Every place that serves the action takes or returns something else."""

    targets: tuple[Target, ...]
    problem: str
    """What was expected and what was found where, for people."""


class NotServed(NamedTuple):
    """No place serves the action."""


Service = Served | Differing | NotServed


class LiveTargets:
    """All that are live at one moment. Unchanging but for what it remembers having worked out: a call costs one look-up."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = tuple(targets)
        self.addresses = tuple(target.address for target in targets)
        self.valid_until = min((target.expires_at for target in targets), default=NEVER)
        """When the first of them expires."""
        self.description = _description_of([target.description for target in targets if target.description is not None])
        """What those that registered can do together: of which release each replica is decides where a call goes, not whether it can.
        None: none did."""
        self.configured = next((target for target in targets if target.description is None), None)
        """The place that stands in the configuration and has not registered itself too; None: there is none."""
        self.wishes = _wishes_of([described for target in targets if (described := target.description or target.told) is not None])
        self._services: dict[tuple[str, str, str], Service] = {}
        self._exchanging = {target.address for target in targets if _exchanges(target)}

    def exchanges(self, address: str) -> bool:
        """Whether Exchange is served there, as far as is known."""
        return address in self._exchanging

    def service_for(self, call: CallParticipant) -> Service:
        """Where a call can go.

        An undo needs only that the participant understands what was asked for. Its output type is not looked at: an action that returns
        something else since, must not keep anybody from undoing what was done before.
        """
        asked = (call.action, call.input_type, call.output_type if call.attempt.direction is Direction.EXECUTE else "")
        service = self._services.get(asked)
        if service is None:
            if len(self._services) >= SERVICES_KNOWN_MAX:
                self._services.clear()
            service = self._services[asked] = self._find(*asked)
        return service

    def _find(self, action: str, input_type: str, output_type: str) -> Service:
        action_name = action.partition(".")[2]
        serving = [target for target in self.targets if target.can_do(action_name)]
        if not serving:
            return NotServed()
        problems = [_problem(target, action, input_type, output_type) for target in serving]
        fitting = tuple(target.address for target, problem in zip(serving, problems, strict=True) if not problem)
        if fitting:
            return Served(fitting)
        more = f" (and {len(serving) - 1} other places differ too)" if len(serving) > 1 else ""
        return Differing(tuple(serving), f"{problems[0]} at {serving[0].address}{more}")


def _exchanges(target: Target) -> bool:
    described = target.description or target.told
    return described is not None and described.exchange


def _problem(target: Target, action: str, input_type: str, output_type: str) -> str:
    described = target.description or target.told
    known = None if described is None else next((known for known in described.actions if known.name == action.partition(".")[2]), None)
    if described is None or known is None:
        return ""  # nobody knows what it takes there
    return find_type_mismatch(action, input_type or known.input_type, output_type or known.output_type, described)


def _description_of(descriptions: Sequence[participant_pb2.ParticipantDescription]) -> participant_pb2.ParticipantDescription | None:
    """The first one, with the actions that only others have. Those that several have are of the same types: the registry sees to that."""
    if len(descriptions) < 2:
        return next(iter(descriptions), None)
    together = participant_pb2.ParticipantDescription()
    together.CopyFrom(descriptions[0])
    known = {action.name for action in together.actions}
    for description in descriptions[1:]:
        new = [action for action in description.actions if action.name not in known]
        known.update(action.name for action in new)
        together.actions.extend(new)
    return together


def _wishes_of(descriptions: Sequence[participant_pb2.ParticipantDescription]) -> Wishes:
    """The most modest of them: replicas may be of different releases."""
    return Wishes(
        concurrency=min((described.concurrency for described in descriptions if described.concurrency), default=0),
        rate_per_second=min((described.rate_per_second for described in descriptions if described.rate_per_second > 0), default=0.0),
    )
