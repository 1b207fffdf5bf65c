"""When the row of a saga is written anew."""

from dataclasses import replace

import pytest

from coordinator.core.values import SagaStatus
from coordinator.engine.ports import Append
from coordinator.journal.records import Standing, record_of
from tests.builders import at
from tests.journals import first, new_id, then

RUNNING = Standing(SagaStatus.RUNNING, is_unfinished=True, is_paused=False, has_ended=False, asleep_until=None)
SAGA = new_id()


def test_step_that_succeeds_leaves_the_row_alone() -> None:
    assert not record_of(then(SAGA, 2)).changes_row(RUNNING)


CHANGES = {
    "another status": then(SAGA, 2, status=SagaStatus.COMPENSATING),
    "paused": then(SAGA, 2, paused=True),
    "nothing can move": then(SAGA, 2, unfinished=False),
    "ended": then(SAGA, 2, ended=True),
    "put to sleep": replace(then(SAGA, 2), wake_at=at(9)),
}


@pytest.mark.parametrize("append", CHANGES.values(), ids=CHANGES.keys())
def test_change_of_what_the_row_tells_writes_it(append: Append) -> None:
    assert record_of(append).changes_row(RUNNING)


def test_row_of_which_nothing_is_known_is_written() -> None:
    assert record_of(then(SAGA, 2)).changes_row(None)


def test_row_is_written_when_the_saga_sleeps_until_another_time_and_when_it_wakes() -> None:
    asleep = record_of(first(SAGA, wake_at=at(9), status=SagaStatus.PENDING))
    assert not asleep.changes_row(asleep.standing)
    assert asleep.changes_row(asleep.standing._replace(asleep_until=at(8)))
    assert asleep.changes_row(asleep.standing._replace(asleep_until=None))
