"""Where participants can be called: configuration, registrations, and how long they hold."""

from collections.abc import AsyncIterator, Mapping

import pytest

from coordinator.dispatcher import ParticipantRegistry
from coordinator.dispatcher.registry import TARGETS_MAX
from coordinator.dispatcher.targets import Served
from coordinator.engine.ports import ParticipantConflictError, StoredParticipant
from coordinator.journal.memory_journal import MemoryJournal
from saga.v1 import participant_pb2
from tests.builders import seconds
from tests.contract.dispatcher.stand import call
from tests.fakes import VirtualClock

TTL_US = seconds(30)


def described(*actions: str, input_type: str = "shop.v1.Order") -> participant_pb2.ParticipantDescription:
    made = [
        participant_pb2.ActionDescription(name=action, input_type=input_type, output_type="shop.v1.Done") for action in actions or ("act",)
    ]
    return participant_pb2.ParticipantDescription(name="shop", actions=made)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def journal(clock: VirtualClock) -> AsyncIterator[MemoryJournal]:
    async with MemoryJournal(clock=clock) as made:
        yield made


def registry_of(clock: VirtualClock, journal: MemoryJournal, configured: Mapping[str, str] | None = None) -> ParticipantRegistry:
    return ParticipantRegistry(clock=clock, journal=journal, configured=configured or {})


def serving(registry: ParticipantRegistry, action_name: str = "act") -> list[str]:
    """The addresses that serve an action of the participant."""
    service = registry.live("shop").service_for(call(f"shop.{action_name}"))
    return list(service.addresses) if isinstance(service, Served) else []


async def test_registration_holds_for_its_time(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal)
    await registry.register("a:1", described(), TTL_US)
    await clock.pass_time(29.9)
    assert serving(registry) == ["a:1"]
    await clock.pass_time(0.1)
    assert serving(registry) == []
    assert not registry.is_known("shop")
    assert registry.live("shop").description is None


async def test_registering_again_holds_longer_and_keeps_the_newest_description(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal)
    await registry.register("a:1", described(), TTL_US)
    await clock.pass_time(20)
    await registry.register("a:1", described("act", "refund"), TTL_US)
    await clock.pass_time(20)
    assert serving(registry, "refund") == ["a:1"]


async def test_restart_remembers_registrations_that_still_hold(clock: VirtualClock, journal: MemoryJournal) -> None:
    before = registry_of(clock, journal)
    await before.register("a:1", described(), TTL_US)
    await before.register("b:1", described(), 2 * TTL_US)
    await clock.pass_time(30)
    after = registry_of(clock, journal)
    await after.load()
    assert serving(after) == ["b:1"]
    assert after.live("shop").description == described()


async def test_registration_that_cannot_be_read_is_left_out(clock: VirtualClock, journal: MemoryJournal) -> None:
    broken = StoredParticipant(name="broken", target="a:1", description=b"\xff\xff", expires_at=clock.now() + TTL_US)  # type: ignore[arg-type]
    await journal.put_participant(broken)
    await registry_of(clock, journal).register("b:1", described(), TTL_US)
    after = registry_of(clock, journal)
    await after.load()
    assert (after.is_known("broken"), after.is_known("shop")) == (False, True)


async def test_configured_participant_serves_whatever_it_is_asked_for(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal, {"shop": "a:1"})
    assert serving(registry, "anything") == ["a:1"]
    assert registry.live("shop").description is None


async def test_configured_participant_stays_known_when_its_registration_has_expired(clock: VirtualClock, journal: MemoryJournal) -> None:
    """It registered too, at the same place, and then stopped doing so."""
    registry = registry_of(clock, journal, {"shop": "a:1"})
    await registry.register("a:1", described(), TTL_US)
    assert serving(registry, "other") == []
    await clock.pass_time(31)
    assert registry.is_known("shop")
    assert serving(registry, "other") == ["a:1"]
    assert registry.live("shop").description is None


async def test_registration_at_another_place_is_a_replica_of_the_configured_one(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal, {"shop": "a:1"})
    await registry.register("b:1", described(), TTL_US)
    assert serving(registry) == ["a:1", "b:1"]
    await clock.pass_time(31)
    assert serving(registry) == ["a:1"]


async def test_same_action_with_other_types_elsewhere_is_refused(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal)
    await registry.register("a:1", described(), TTL_US)
    with pytest.raises(ParticipantConflictError, match="is served at a:1"):
        await registry.register("b:1", described(input_type="other.v1.Order"), TTL_US)
    assert serving(registry) == ["a:1"]
    assert [stored.target for stored in await journal.list_participants()] == ["a:1"]


async def test_same_place_may_change_its_types_and_an_expired_one_is_in_nobodys_way(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal)
    await registry.register("a:1", described(), TTL_US)
    await registry.register("a:1", described(input_type="other.v1.Order"), TTL_US)
    await clock.pass_time(31)
    await registry.register("b:1", described(input_type="third.v1.Order"), TTL_US)
    assert serving(registry) == ["b:1"]


@pytest.mark.full
async def test_targets_of_one_participant_are_bounded(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal)
    for number in range(TARGETS_MAX):
        await registry.register(f"a:{number}", described(), TTL_US)
    with pytest.raises(ParticipantConflictError, match="at most 1000 targets"):
        await registry.register("b:1", described(), TTL_US)
    await registry.register("a:7", described(), TTL_US)  # one that is there may renew


async def test_listeners_hear_of_new_targets_only(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry = registry_of(clock, journal)
    told: list[str] = []
    registry.on_change(told.append)
    await registry.register("a:1", described(), TTL_US)
    await registry.register("a:1", described(), TTL_US)
    await registry.register("b:1", described(), TTL_US)
    assert told == ["shop", "shop"]
    await clock.pass_time(31)
    await registry.register("a:1", described(), TTL_US)
    assert told == ["shop"] * 3


async def test_name_of_a_configured_service_is_taken(clock: VirtualClock, journal: MemoryJournal) -> None:  # R18
    """A participant of that name would take what the service did for never done: it would undo nothing and say that it did."""
    await registry_of(clock, journal).register("a:1", described(), TTL_US)
    registry = ParticipantRegistry(clock=clock, journal=journal, configured={}, services={"shop"})
    await registry.load()  # nor does one that registered before it was configured
    assert not registry.is_known("shop")
    with pytest.raises(ParticipantConflictError, match="is configured as a service"):
        await registry.register("a:1", described(), TTL_US)


async def test_service_stays_known_and_takes_the_place_of_what_it_was(clock: VirtualClock, journal: MemoryJournal) -> None:
    registry, told = registry_of(clock, journal), list[str]()
    registry.on_sign_of_life(told.append)
    registry.put_service("a:1", described())
    registry.put_service("a:1", described())
    await clock.pass_time(1_000_000)
    assert serving(registry) == ["a:1"]
    assert told == ["shop", "shop"]
    registry.put_service("a:1", described("refund"))
    assert (serving(registry), serving(registry, "refund")) == ([], ["a:1"])
