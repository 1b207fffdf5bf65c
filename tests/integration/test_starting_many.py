"""Many starts in one call, to a real coordinator: in frames, answered one by one, and none lost or doubled when it restarts."""

import asyncio
from datetime import timedelta
from pathlib import Path

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from participant_sdk.client import AlreadyExists, InvalidRequest, NotStarted, SagaClient, Start, Started, SyncSagaClient
from participant_sdk.ids import new_saga_id
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.processes import CoordinatorProcess

PATIENCE = timedelta(minutes=1)
A_DAY = timedelta(days=1)


async def test_many_are_started_and_wrong_ones_fail_alone(running: Running) -> None:  # H4
    await running.client.register(plain("s", "a"))
    starts: list[object] = [StringValue(value=str(number)) for number in range(100)]
    starts[7] = Int32Value(value=1)
    starts[50] = Start(StringValue(value="another"), {"key": "order-49"})
    starts[49] = Start(StringValue(value="one"), {"key": "order-49"})
    answers = [each async for each in running.client.start_many("s", starts, window=32)]
    assert [each.position for each in answers] == list(range(100))
    wrong = {each.position: type(each.error) for each in answers if isinstance(each, NotStarted)}
    assert wrong[7] is InvalidRequest
    # Both are under way at once: whichever comes second is another piece of business under the same key.
    assert {position for position in wrong if position != 7} <= {49, 50}
    assert [kind for position, kind in wrong.items() if position != 7] == [AlreadyExists]
    assert {each.handle.id for each in answers if isinstance(each, Started)} == {saga.id async for saga in running.client.list()}


async def test_sync_client_starts_many(running: Running) -> None:  # H4
    await running.client.register(plain("s", "a"))

    def work() -> set[str]:
        with SyncSagaClient(running.address) as client:
            answers = client.start_many("s", (StringValue(value=str(number)) for number in range(300)))
            return {each.handle.id for each in answers if isinstance(each, Started)}

    ids = await asyncio.to_thread(work)
    assert len(ids) == 300
    assert ids == {saga.id async for saga in running.client.list()}


async def test_many_starts_across_a_restart_start_each_once(tmp_path: Path) -> None:  # P1, R2
    starts = [Start(StringValue(value=str(number)), {"saga_id": new_saga_id()}) for number in range(300)]
    with CoordinatorProcess(tmp_path) as coordinator:
        await coordinator.start()
        async with SagaClient(coordinator.address, timeout=PATIENCE) as client:
            await client.register(plain("s", "a"))
            ids = []
            async for each in client.start_many("s", starts, window=32):
                assert isinstance(each, Started)
                ids.append(each.handle.id)
                if each.position == 100:
                    coordinator.kill()
                    await coordinator.start(wait=False)
            assert ids == [start.options["saga_id"] for start in starts]
            assert {saga.id async for saga in client.list()} == set(ids)
