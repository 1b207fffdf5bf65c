"""Which places serve an action as its definition says."""

from coordinator.core.effects import CallParticipant
from coordinator.core.values import Direction, Payload
from coordinator.dispatcher.lane import Wishes
from coordinator.dispatcher.targets import SERVICES_KNOWN_MAX, Differing, LiveTargets, NotServed, Served, Target
from saga.v1 import participant_pb2
from tests.contract.dispatcher.stand import STRING, call, described

INT = "google.protobuf.Int64Value"


def registered(address: str, description: participant_pb2.ParticipantDescription) -> Target:
    return Target(address=address, description=description)


def configured(address: str, told: participant_pb2.ParticipantDescription | None = None) -> Target:
    return Target(address=address, description=None, told=told)


def typed(action: str = "shop.act", direction: Direction = Direction.EXECUTE, output: Payload | None = None) -> CallParticipant:
    return call(action, direction=direction, output=output, input_type=STRING, output_type=STRING)


RIGHT, OTHER_INPUT, OTHER_OUTPUT = described(), described(input_type=INT), described(output_type=INT)


def test_action_that_nobody_has_is_not_served() -> None:
    assert LiveTargets([registered("a:1", RIGHT)]).service_for(typed("shop.other")) == NotServed()
    assert LiveTargets([]).service_for(typed()) == NotServed()


def test_configured_place_that_said_nothing_serves_everything() -> None:
    assert LiveTargets([configured("a:1")]).service_for(typed("shop.other")) == Served(("a:1",))


def test_configured_place_may_serve_more_than_one_of_its_replicas_told() -> None:
    assert LiveTargets([configured("a:1", RIGHT)]).service_for(typed("shop.other")) == Served(("a:1",))


def test_places_of_other_types_are_passed_over() -> None:
    live = LiveTargets(
        [registered("a:1", RIGHT), registered("b:1", OTHER_INPUT), configured("c:1", OTHER_OUTPUT), configured("d:1", RIGHT)]
    )
    assert live.service_for(typed()) == Served(("a:1", "d:1"))


def test_replicas_of_several_releases_are_described_together() -> None:
    old, new = described("shop", "act", "dropped"), described("shop", "act", "added")
    live = LiveTargets([registered("a:1", old), configured("b:1"), registered("c:1", new)])
    assert live.description is not None
    assert [action.name for action in live.description.actions] == ["act", "dropped", "added"]
    assert old == described("shop", "act", "dropped")
    assert live.service_for(typed("shop.added")) == Served(("b:1", "c:1"))


def test_where_all_differ_the_problem_says_what_and_where() -> None:
    targets = [registered("a:1", OTHER_INPUT), configured("b:1", OTHER_OUTPUT)]
    service = LiveTargets(targets).service_for(typed())
    assert isinstance(service, Differing)
    assert service.targets == tuple(targets)
    assert all(part in service.problem for part in ("shop.act", STRING, INT, "at a:1", "1 other place"))


def test_definition_that_says_no_types_is_not_checked() -> None:
    live = LiveTargets([registered("a:1", described(input_type=INT, output_type=INT))])
    assert live.service_for(call()) == Served(("a:1",))


def test_undo_asks_only_that_its_input_is_understood() -> None:
    live = LiveTargets([registered("a:1", OTHER_OUTPUT)])
    assert isinstance(live.service_for(typed()), Differing)
    for output in (None, Payload(STRING, b"")):
        assert live.service_for(typed(direction=Direction.COMPENSATE, output=output)) == Served(("a:1",))
    other = LiveTargets([registered("a:1", OTHER_INPUT)])
    assert isinstance(other.service_for(typed(direction=Direction.COMPENSATE)), Differing)


def test_wishes_are_those_of_the_most_modest() -> None:
    live = LiveTargets(
        [
            registered("a:1", described(concurrency=8, rate=0)),
            configured("b:1", described(concurrency=4, rate=50)),
            configured("c:1"),
            registered("d:1", described(concurrency=0, rate=20)),
        ]
    )
    assert live.wishes == Wishes(concurrency=4, rate_per_second=20)
    assert LiveTargets([configured("a:1")]).wishes == Wishes()


def test_what_is_remembered_of_many_definitions_is_bounded() -> None:
    live = LiveTargets([configured("a:1")])
    for number in range(SERVICES_KNOWN_MAX + 10):
        live.service_for(call(f"shop.act{number}"))
    assert len(live._services) <= SERVICES_KNOWN_MAX
