"""What the journal knows by heart about the core agrees with the core."""

from coordinator.core.values import UNFINISHED, SagaStatus
from coordinator.journal.records import record_of
from coordinator.journal.tables import IS_UNFINISHED
from tests.builders import at
from tests.journals import first, new_id, then


def test_unfinished_sagas_of_the_index_are_those_of_the_core() -> None:
    assert f"status IN ({', '.join(str(int(status)) for status in sorted(UNFINISHED))}) AND quarantine_code IS NULL" == IS_UNFINISHED


def test_sleeping_saga_has_its_row_written() -> None:
    append = first(new_id(), wake_at=at(9), status=SagaStatus.PENDING)
    assert record_of(append).changes_row


def test_step_that_succeeds_leaves_the_row_alone() -> None:
    assert not record_of(then(new_id(), 2)).changes_row
