"""What the conformance rules find out about participants that are careful, and careless in one way each."""

from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from participant_sdk.testing.conformance import (
    RULES,
    ConformanceError,
    ConformanceReport,
    ParticipantBrokenError,
    Verdict,
    VerifyOptions,
    Way,
    describe_participant,
    verify_participant,
)
from tests.integration.conformance.careless import Careless
from tests.integration.conformance.plain_participant import PlainParticipant, PlainServer
from tests.processes import free_port

EVERY_RULE: Final = {rule.name for rule in RULES}
ACTION: Final = "plain.act"
INPUT: Final = StringValue(value="something")
QUICK: Final = VerifyOptions(timeout=timedelta(seconds=1))
PATIENT: Final = VerifyOptions(timeout=timedelta(seconds=3))
"""For a machine that has other full tests to do at the same time."""

BROKEN_BY: Final[dict[Careless, Set[str]]] = {
    Careless.NO_BARRIER: {
        "duplicate-execute", "concurrent-duplicates", "execute-after-compensate", "deadline", "restart",
        "exchange-replies", "exchange-ids", "exchange-forsaken", "exchange-end", "exchange-drain", "exchange-trace",
    },
    Careless.RACES: {"concurrent-duplicates"},
    Careless.REFUSES_NULL_COMPENSATION: {"compensate-before-execute", "execute-after-compensate", "deadline", "exchange-ids"},
    Careless.FORGETS_COMPENSATION: {"execute-after-compensate", "deadline", "restart", "exchange-forsaken"},
    Careless.REFUSES_SECOND_UNDO: {"compensate-twice"},
    Careless.UNDOES_NOTHING: {"compensate-twice", "restart"},
    Careless.OUTLIVES_DEADLINE: {"deadline"},
    Careless.HANGS_AFTER_DEADLINE: {"deadline", "exchange-forsaken"},
    Careless.FAILS_ON_GARBAGE: {"garbage-input"},
    Careless.TAKES_OTHER_TYPES: {"garbage-input"},
    Careless.TAKES_ANY_ACTION: {"garbage-input"},
    Careless.CHOKES: {"oversized-input"},
    Careless.FORGETS_AT_RESTART: {"restart", "exchange-drain"},
    Careless.LIES: {"describe"},
    Careless.HIDES_TYPES: {"describe"},
    Careless.FORGETS_A_REPLY: {"exchange-replies", "exchange-end", "exchange-drain"},
    Careless.SERVES_AN_ID_TWICE: {"exchange-ids"},
    Careless.HANGS_UP: {"exchange-forsaken"},
    Careless.CUTS_AT_THE_END: {"exchange-end"},
    Careless.DRAINS_IN_HASTE: {"exchange-drain"},
    Careless.ONE_BIG_FRAME: {"exchange-bounds"},
    Careless.FORGETS_THE_TIME: {"exchange-time"},
    Careless.CHOKES_ON_TRACES: {"exchange-trace"},
}  # fmt: skip
TRIED_FAST: Final = {Careless.LIES}
"""Others take several seconds each."""
ABOUT_FRAMES: Final = {name for name in EVERY_RULE if name.startswith("exchange-")}


@asynccontextmanager
async def serving(
    careless: Careless = Careless.IN_NOTHING,
    *,
    describes: bool = True,
    compensatable: bool = True,
    exchanges: bool = True,
    says_so: bool = True,
) -> AsyncIterator[PlainServer]:
    """`says_so`: whether it describes as it is whether it `exchanges`."""
    participant = PlainParticipant(
        careless, describes=describes, compensatable=compensatable, exchanges=exchanges, says_exchange=exchanges is says_so
    )
    server = PlainServer(participant, forgets=careless is Careless.FORGETS_AT_RESTART, takes_large=careless is Careless.CHOKES)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def verified(server: PlainServer, options: VerifyOptions = QUICK) -> ConformanceReport:
    return await verify_participant(server.address, ACTION, INPUT, replace(options, restart=server.restart))


def names(report: ConformanceReport, verdict: Verdict, way: Way | None = None) -> set[str]:
    """Rules with that verdict, when the participant was called in that way, or in any."""
    return {finding.rule for finding in report.findings if finding.verdict is verdict and way in {None, finding.way}}


async def test_careful_participant_without_the_sdk_keeps_every_rule_and_nothing_is_left() -> None:
    async with serving() as server:
        report = await verified(server)
    report.raise_if_broken()
    assert names(report, Verdict.KEPT, Way.ONE_BY_ONE) == EVERY_RULE - ABOUT_FRAMES
    assert names(report, Verdict.KEPT, Way.IN_FRAMES) == EVERY_RULE - {"describe"}
    assert report.left_behind == 0


def test_every_rule_is_broken_by_somebody() -> None:
    assert set().union(*BROKEN_BY.values()) == EVERY_RULE
    assert set(BROKEN_BY) == set(Careless) - {Careless.IN_NOTHING}


@pytest.mark.parametrize(
    "careless",
    [pytest.param(one, marks=() if one in TRIED_FAST else pytest.mark.full, id=one.name.lower()) for one in BROKEN_BY],
)
async def test_careless_participant_fails_the_rules_that_it_breaks_and_no_others(careless: Careless) -> None:
    async with serving(careless) as server:
        report = await verified(server, QUICK if careless in TRIED_FAST else PATIENT)
    assert names(report, Verdict.BROKEN) == BROKEN_BY[careless]
    with pytest.raises(ParticipantBrokenError, match=rf"^plain\.act at {server.address} breaks {len(report.broken)} of 27 rules:\n"):
        report.raise_if_broken()


@pytest.mark.full
async def test_participant_that_does_not_describe_itself_is_judged_all_the_same() -> None:
    async with serving(describes=False) as server:
        report = await verified(server)
        assert await describe_participant(server.address, "plain") is None
    assert names(report, Verdict.DOES_NOT_APPLY, Way.ONE_BY_ONE) == {"describe"}
    assert names(report, Verdict.KEPT) == EVERY_RULE - {"describe"} - ABOUT_FRAMES


async def test_participant_without_exchange_is_judged_one_by_one() -> None:
    async with serving(exchanges=False) as server:
        report = await verified(server)
    assert names(report, Verdict.KEPT) == names(report, Verdict.KEPT, Way.ONE_BY_ONE) == EVERY_RULE - ABOUT_FRAMES
    assert names(report, Verdict.DOES_NOT_APPLY, Way.IN_FRAMES) == EVERY_RULE - {"describe"}


@pytest.mark.full
async def test_participant_that_does_not_serve_the_exchange_that_it_describes_breaks_every_rule_in_frames() -> None:
    async with serving(exchanges=False, says_so=False) as server:
        report = await verified(server)
    assert names(report, Verdict.BROKEN) == names(report, Verdict.BROKEN, Way.IN_FRAMES) >= ABOUT_FRAMES


@pytest.mark.full
async def test_action_that_cannot_be_undone_is_not_asked_to_and_leaves_its_effects() -> None:
    async with serving(compensatable=False) as server:
        report = await verify_participant(server.address, ACTION, INPUT, QUICK)
    assert names(report, Verdict.DOES_NOT_APPLY) == {"compensate-before-execute", "execute-after-compensate", "compensate-twice"}
    assert names(report, Verdict.NOT_RUN) == {"restart", "exchange-drain"}
    assert report.broken == []
    assert report.left_behind > 0


async def test_what_is_not_there_is_told_with_what_is() -> None:
    async with serving() as server:
        with pytest.raises(ConformanceError, match=r"expected an action plain\.other at .*, found plain\.act"):
            await verify_participant(server.address, "plain.other", INPUT, QUICK)
        with pytest.raises(ConformanceError, match=r"to take effect with the input given, found REJECTED INVALID_ARGUMENT .*Int32Value"):
            await verify_participant(server.address, ACTION, Int32Value(), QUICK)
    with pytest.raises(ConformanceError, match="nobody answers at"):
        await verify_participant(f"127.0.0.1:{free_port()}", ACTION, INPUT, QUICK)


@pytest.mark.full
async def test_participant_that_does_not_come_back_is_told() -> None:
    async with serving() as server:
        options = VerifyOptions(timeout=timedelta(seconds=0.5), restart=server.stop)
        with pytest.raises(ConformanceError, match=r"answer again within 1\.5 s of its restart"):
            await verify_participant(server.address, ACTION, INPUT, options)
