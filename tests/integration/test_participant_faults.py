"""Participants that are away, slow, broken or wrong: over real sockets, without the SDK."""

import asyncio
from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from participant_sdk import RetryPolicy, Saga
from participant_sdk.rpc_errors import status_with
from saga.v1 import coordinator_pb2, operator_pb2, operator_pb2_grpc, participant_pb2, saga_pb2
from tests.integration.conftest import Running
from tests.integration.definitions import plain
from tests.participants import Context, PlainParticipant, compensated, register, serving, succeeded
from tests.processes import free_port

X = StringValue(value="x")
COMPLETED = saga_pb2.SAGA_STATUS_COMPLETED
COMPENSATED = saga_pb2.SAGA_STATUS_COMPENSATED


def statuses(saga: saga_pb2.Saga) -> dict[str, str]:
    return {step.id: saga_pb2.StepStatus.Name(step.status).removeprefix("STEP_STATUS_") for step in saga.steps}


async def test_participant_down_at_start_is_called_when_it_comes(running: Running) -> None:
    port = free_port()
    await register(running.address, f"127.0.0.1:{port}", "plain", "act")
    await running.client.register(plain("s", "act"))
    handle = await running.client.start("s", X)
    async for seen in handle.watch():
        if seen.event.HasField("attempt_failed"):  # it was tried, and nobody was there
            break
    async with serving(PlainParticipant(), port):
        saga = await handle.wait(timeout=timedelta(seconds=20))
    assert saga.status == COMPLETED
    assert saga.steps[0].execute_attempts >= 2


async def test_participant_down_for_a_while_gets_the_same_key_again(running: Running) -> None:  # P2, R1
    port = free_port()
    participant = PlainParticipant()

    async def hang(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await asyncio.Event().wait()
        raise AssertionError

    participant.on_execute["plain.act"] = hang
    await register(running.address, f"127.0.0.1:{port}", "plain", "act")
    await running.client.register(plain("s", "act"))
    async with serving(participant, port):
        handle = await running.client.start("s", X)
        await participant.arrived["plain.act"].wait()
    participant.on_execute.clear()
    async with serving(participant, port):
        saga = await handle.wait(timeout=timedelta(seconds=20))
    assert saga.status == COMPLETED
    assert len({request.key for request in participant.executions}) == 1
    assert [request.attempt for request in participant.executions] == sorted({request.attempt for request in participant.executions})


async def test_participant_that_never_comes_turns_the_saga_back_in_time(running: Running) -> None:
    await running.client.register(plain("s", "act", execute_time_limit=timedelta(milliseconds=300)))
    saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert saga.status == COMPENSATED
    assert statuses(saga) == {"act": "REJECTED"}  # it is known that it was never called (R7)
    assert "has not registered" in saga.error.message


async def test_participant_that_registers_late_gets_the_waiting_calls(running: Running) -> None:
    await running.client.register(plain("s", "act"))
    handle = await running.client.start("s", X)
    async with serving(PlainParticipant()) as target:
        await register(running.address, target, "plain", "act")
        saga = await handle.wait(timeout=timedelta(seconds=20))
    assert saga.status == COMPLETED
    assert saga.steps[0].execute_attempts == 1


async def test_garbage_answers_are_unknown_and_retried(running: Running) -> None:  # R6
    participant = PlainParticipant()
    broken = Any(type_url="type.googleapis.com/google.protobuf.StringValue", value=b"\xff\xff")
    wrong_type = Any()
    wrong_type.Pack(Int64Value(value=1))
    answers = [
        participant_pb2.ExecuteResponse(),  # OK without an outcome
        participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=broken)),
        participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=wrong_type)),
        participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded()),  # no type at all
        succeeded("at last"),
    ]

    async def answer(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return answers[request.attempt - 1]

    participant.on_execute["plain.act"] = answer
    async with serving(participant) as target:
        await register(running.address, target, "plain", "act")
        await running.client.register(plain("s", "act"))
        saga = await running.client.wait((await running.client.start("s", X)).id)
    assert saga.status == COMPLETED
    assert saga.steps[0].execute_attempts == 5


async def test_bytes_that_are_no_message_are_unknown(running: Running) -> None:  # R6
    """A server that answers Execute with bytes which are no protobuf message at all."""

    async def execute(request: bytes, context: object) -> bytes:
        return b"\xff\xff\xff"

    async def compensate(request: bytes, context: object) -> bytes:
        return compensated().SerializeToString()

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Execute": grpc.unary_unary_rpc_method_handler(execute),
        "Compensate": grpc.unary_unary_rpc_method_handler(compensate),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("saga.v1.ParticipantService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await register(running.address, f"127.0.0.1:{port}", "plain", "act")
    await running.client.register(plain("s", "act", execute_retry=RetryPolicy(max_attempts=1)))
    saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    await server.stop(None)
    assert saga.status == COMPENSATED
    assert saga.cause == saga_pb2.TURN_BACK_CAUSE_STEP_UNKNOWN


async def test_hanging_past_the_deadline_is_unknown_and_compensated(running: Running) -> None:  # R6, P4
    participant = PlainParticipant()

    async def hang(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await asyncio.Event().wait()
        raise AssertionError

    participant.on_execute["plain.act"] = hang
    async with serving(participant) as target:
        await register(running.address, target, "plain", "act")
        policy = RetryPolicy(max_attempts=2, initial_backoff=timedelta(milliseconds=10))
        await running.client.register(plain("s", "act", attempt_timeout=timedelta(milliseconds=100), execute_retry=policy))
        saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert saga.status == COMPENSATED
    assert saga.cause == saga_pb2.TURN_BACK_CAUSE_STEP_UNKNOWN
    (undo,) = participant.compensations
    assert undo.WhichOneof("execution") == "unknown"
    assert undo.execute_key == participant.executions[0].key


async def test_effect_with_lost_reply_then_rejected_repeat_is_compensated(running: Running) -> None:  # P4, R5
    participant = PlainParticipant()

    async def lose_then_reject(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if request.attempt == 1:  # it took effect, and the reply is lost
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is such a charge")
        raise AssertionError

    participant.on_execute["plain.act"] = lose_then_reject
    async with serving(participant) as target:
        await register(running.address, target, "plain", "act")
        await running.client.register(plain("s", "act"))
        saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert saga.status == COMPENSATED
    assert statuses(saga) == {"act": "COMPENSATED"}
    assert len(participant.undone("plain.act")) == 1


async def test_first_refusal_is_clean_and_not_compensated(running: Running) -> None:  # R5
    participant = PlainParticipant()

    async def reject(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "card declined")
        raise AssertionError

    participant.on_execute["plain.charge"] = reject
    async with serving(participant) as target:
        await register(running.address, target, "plain", "reserve", "charge")
        await running.client.register(plain("s", "reserve", "charge"))
        saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert statuses(saga) == {"reserve": "COMPENSATED", "charge": "REJECTED"}
    assert [request.step_id for request in participant.compensations] == ["reserve"]
    assert participant.compensations[0].succeeded == succeeded("reserve done").succeeded  # A8: undone with the output of its execution


async def test_late_answer_changes_nothing(running: Running) -> None:
    """The first attempt is answered long after its deadline, when the second one has settled the step."""
    participant = PlainParticipant()
    let_go = asyncio.Event()
    answered_late = asyncio.Event()

    async def slow_then_quick(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if request.attempt == 1:
            try:
                await let_go.wait()
            finally:
                answered_late.set()
            return succeeded("too late")
        return succeeded("in time")

    participant.on_execute["plain.act"] = slow_then_quick
    async with serving(participant) as target:
        await register(running.address, target, "plain", "act")
        saga_definition = plain("s", "act", attempt_timeout=timedelta(milliseconds=100))
        await running.client.register(saga_definition)
        saga = await running.client.run("s", X)
        let_go.set()
        await answered_late.wait()
        again = await running.client.get(saga.id)
    assert again.sequence == saga.sequence
    assert StringValue.FromString(again.steps[0].output.value).value == "in time"


async def test_retry_info_is_followed_and_counts_as_no_attempt(running: Running) -> None:  # R6, R7
    participant = PlainParticipant()

    async def later(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        if request.attempt <= 3:
            info = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=20_000_000))
            await context.abort_with_status(rpc_status.to_status(status_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", info)))
        return succeeded("now")

    participant.on_execute["plain.act"] = later
    async with serving(participant) as target:
        await register(running.address, target, "plain", "act")
        await running.client.register(
            plain("s", "act", execute_retry=RetryPolicy(max_attempts=1, initial_backoff=timedelta(milliseconds=10)))
        )
        saga = await running.client.run("s", X)
    assert saga.status == COMPLETED


async def test_unimplemented_participant_is_tried_a_few_times_and_clean(running: Running) -> None:  # R6
    participant = PlainParticipant()

    async def unimplemented(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such action")
        raise AssertionError

    participant.on_execute["plain.act"] = unimplemented
    async with serving(participant) as target:
        await register(running.address, target, "plain", "act")
        await running.client.register(plain("s", "act"))
        saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert statuses(saga) == {"act": "REJECTED"}
    assert len(participant.executions) == 3
    assert participant.compensations == []


async def test_compensation_that_is_refused_is_repeated_then_fails_with_an_incident(running: Running) -> None:  # R8, R15
    participant = PlainParticipant()

    async def reject(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        return participant_pb2.ExecuteResponse(rejected=participant_pb2.Rejected(sealed=True))

    async def refuse(request: participant_pb2.CompensateRequest, context: Context) -> participant_pb2.CompensateResponse:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "will not")
        raise AssertionError

    participant.on_execute["plain.third"] = reject
    participant.on_compensate["plain.second"] = refuse
    async with serving(participant) as target:
        await register(running.address, target, "plain", "first", "second", "third")
        policy = RetryPolicy(max_attempts=3, initial_backoff=timedelta(milliseconds=10))
        await running.client.register(plain("s", "first", "second", "third", compensate_retry=policy))
        saga = await (await running.client.start("s", X)).wait(timeout=timedelta(seconds=20))
    assert saga.status == saga_pb2.SAGA_STATUS_FAILED
    assert statuses(saga) == {"first": "SUCCEEDED", "second": "COMPENSATION_FAILED", "third": "REJECTED"}
    assert len(participant.undone("plain.second")) == 3
    (incident,) = saga.incidents
    assert (incident.kind, incident.step_id) == (saga_pb2.INCIDENT_KIND_COMPENSATION_EXHAUSTED, "second")
    assert "will not" in incident.error.message


async def test_one_participant_that_hangs_does_not_stop_the_others(running: Running) -> None:  # P5
    participant = PlainParticipant()
    forever = asyncio.Event()

    async def hang(request: participant_pb2.ExecuteRequest, context: Context) -> participant_pb2.ExecuteResponse:
        await forever.wait()
        return succeeded("")

    participant.on_execute["slow.act"] = hang
    async with serving(participant) as target:
        await register(running.address, target, "slow", "act")
        await register(running.address, target, "plain", "act")
        slow = plain("slow")
        slow.step("slow.act", request=StringValue, response=StringValue)
        await running.client.register(slow)
        await running.client.register(plain("s", "act"))
        stuck = [await running.client.start("slow", X) for _ in range(100)]
        done = await asyncio.gather(*(running.client.run("s", X) for _ in range(20)))
        assert all(saga.status == COMPLETED for saga in done)
        assert len(participant.executed("slow.act")) <= 64  # bounded concurrency
        forever.set()
        ended = await asyncio.gather(*(handle.wait(timeout=timedelta(seconds=20)) for handle in stuck))
    assert all(saga.status == COMPLETED for saga in ended)


# ── Protection ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def standing_of(operator: "operator_pb2_grpc.OperatorServiceAsyncStub", name: str) -> operator_pb2.ParticipantStanding:
    listed = await operator.ListParticipants(operator_pb2.ListParticipantsRequest(), timeout=10)
    (found,) = [standing for standing in listed.participants if standing.name == name]
    return found


async def test_participant_that_is_down_is_left_alone_and_stops_nobody_else(running: Running) -> None:  # P5, R7
    port, away, there = free_port(), PlainParticipant(), PlainParticipant()
    async with serving(there) as target, grpc.aio.insecure_channel(running.address) as channel:
        operator = operator_pb2_grpc.OperatorServiceStub(channel)
        await register(running.address, f"127.0.0.1:{port}", "away", "act")
        await register(running.address, target, "plain", "act")
        lost = Saga("lost", input=StringValue)
        lost.step("away.act", request=StringValue, response=StringValue)
        await running.client.register(lost)
        await running.client.register(plain("s", "act"))
        stuck = [await running.client.start("lost", X) for _ in range(100)]
        done = await asyncio.gather(*(running.client.run("s", X) for _ in range(20)))
        assert all(saga.status == COMPLETED for saga in done)
        async with asyncio.timeout(20):
            while (standing := await standing_of(operator, "away")).circuit != operator_pb2.CIRCUIT_STATE_OPEN:
                await asyncio.sleep(0.01)
        assert standing.last_error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert (await standing_of(operator, "plain")).circuit == operator_pb2.CIRCUIT_STATE_CLOSED
        async with serving(away, port):
            ended = await asyncio.gather(*(handle.wait(timeout=timedelta(seconds=30)) for handle in stuck))
    assert all(saga.status == COMPLETED for saga in ended)
    # Those that were on their way when it was noticed; nobody is called again and again for nothing.
    assert sum(saga.steps[0].execute_attempts - 1 for saga in ended) < 2 * len(stuck)


async def test_action_whose_types_differ_when_it_shows_up_opens_an_incident_without_a_call(running: Running) -> None:
    participant = PlainParticipant()
    async with serving(participant) as target, grpc.aio.insecure_channel(running.address) as channel:
        await running.client.register(plain("s", "act"))  # nobody knows the participant yet, so nothing is refused
        handle = await running.client.start("s", X)
        other = participant_pb2.ActionDescription(
            name="act", input_type="google.protobuf.Int64Value", output_type="google.protobuf.StringValue", compensatable=True
        )
        await running.stub.RegisterParticipant(
            coordinator_pb2.RegisterParticipantRequest(
                target=target,
                description=participant_pb2.ParticipantDescription(name="plain", actions=[other]),
                ttl=Duration(seconds=60),
            )
        )
        saga = await handle.wait(timeout=timedelta(seconds=20))
        assert saga.status == saga_pb2.SAGA_STATUS_FAILED
        (incident,) = saga.incidents
        assert (incident.kind, incident.step_id) == (saga_pb2.INCIDENT_KIND_TYPE_MISMATCH, "act")
        assert all(part in incident.error.message for part in ("plain.act", "Int64Value", "StringValue", target))
        assert participant.executions == []

        await register(running.address, target, "plain", "act")  # the right release
        operator = operator_pb2_grpc.OperatorServiceStub(channel)
        await operator.RetryStep(operator_pb2.RetryStepRequest(saga_id=saga.id, step_id="act", reason="the right release is there"))
        assert (await handle.wait(timeout=timedelta(seconds=20))).status == COMPLETED
    assert len(participant.executions) == 1
