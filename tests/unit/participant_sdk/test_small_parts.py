"""Descriptors, exceptions, statements and retention."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import MetaData

from participant_sdk import NoBarrier, ParticipantSetupError, Rejected, RetryLater, barrier_table
from participant_sdk.barrier.statements import Statements
from participant_sdk.clock import instant_of, micros_of
from participant_sdk.descriptors import closed_descriptors
from participant_sdk.retention import BATCH_ROWS, BATCHES_MAX, forget_once
from participant_sdk.testing import step_context
from saga.v1 import coordinator_pb2


def test_descriptors_come_after_what_they_import_and_make_a_pool_of_their_own() -> None:
    closed = closed_descriptors([coordinator_pb2.StartSagaResponse.DESCRIPTOR, coordinator_pb2.GetSagaRequest.DESCRIPTOR])
    names = [file.name for file in closed.file]
    assert names == ["google/rpc/status.proto", "saga/v1/saga.proto", "saga/v1/participant.proto", "saga/v1/coordinator.proto"]
    pool = descriptor_pool.DescriptorPool()
    default = descriptor_pool.Default()
    for well_known in ("any", "descriptor", "duration", "timestamp"):
        pool.AddSerializedFile(default.FindFileByName(f"google/protobuf/{well_known}.proto").serialized_pb)
    for file in closed.file:
        pool.Add(file)
    assert pool.FindMessageTypeByName("saga.v1.Saga").full_name == "saga.v1.Saga"


def test_descriptors_of_well_known_types_need_no_file() -> None:
    assert not closed_descriptors([StringValue.DESCRIPTOR]).file


def test_rejection_tells_its_reason_when_it_has_no_message() -> None:
    assert Rejected("OUT_OF_STOCK").message == "OUT_OF_STOCK"
    assert str(Rejected("OUT_OF_STOCK", "none left")) == "OUT_OF_STOCK: none left"
    with pytest.raises(ValueError, match="OK"):
        Rejected("FINE", code=grpc.StatusCode.OK)


def test_negative_delay_means_at_once() -> None:
    assert RetryLater(timedelta(seconds=-1)).after == timedelta()


def test_instants_survive_the_way_there_and_back() -> None:
    instant = datetime(2026, 11, 23, 4, 26, 1, 123_457, tzinfo=UTC)
    assert instant_of(micros_of(instant - datetime(1970, 1, 1, tzinfo=UTC))) == instant


def test_database_without_on_conflict_is_refused() -> None:
    with pytest.raises(ParticipantSetupError, match="sqlite, postgresql, mysql, mariadb, found an engine for oracle"):
        Statements(barrier_table(MetaData()), "oracle")


def test_step_context_for_tests_has_time_left_and_says_why_it_has_no_session() -> None:
    step = step_context(time_left=timedelta(hours=1))
    assert timedelta(minutes=59) < step.time_left() <= timedelta(hours=1)
    assert not step.cancelled
    assert step_context(time_left=timedelta()).cancelled
    with pytest.raises(RuntimeError, match=r"step_context\(session=…\)"):
        _ = step.session


class CountingBarrier(NoBarrier):
    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.batches = 0

    async def delete_expired(self, limit: int) -> int:
        self.batches += 1
        forgotten = min(limit, self.rows)
        self.rows -= forgotten
        return forgotten


@pytest.mark.parametrize(("rows", "batches"), [(0, 1), (BATCH_ROWS - 1, 1), (BATCH_ROWS, 2), (2 * BATCH_ROWS + 1, 3)])
async def test_retention_goes_on_while_batches_are_full(rows: int, batches: int) -> None:
    barrier = CountingBarrier(rows)
    assert await forget_once(barrier) == rows
    assert barrier.batches == batches


async def test_retention_of_one_round_is_bounded() -> None:
    barrier = CountingBarrier(BATCH_ROWS * (BATCHES_MAX + 5))
    assert await forget_once(barrier) == BATCH_ROWS * BATCHES_MAX
