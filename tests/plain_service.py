"""A scripted participant seen as a service that knows nothing of sagas: the same scripts behind plain unary methods."""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from coordinator.services import ExistingService, ServiceAction
from saga.v1 import participant_pb2, participant_pb2_grpc

PACKAGE: Final = "tests.v1"
STRING: Final = "google.protobuf.StringValue"
UNDO: Final = "undo_"


def service_of(name: str, target: str, *actions: str) -> tuple[ExistingService, FileDescriptorSet]:
    """How such a service stands in the settings, and its descriptors. Everything takes and returns a StringValue."""
    file = FileDescriptorProto(
        name=f"tests/v1/{name}.proto", package=PACKAGE, syntax="proto3", dependency=["google/protobuf/wrappers.proto"]
    )
    service = file.service.add(name=name)
    for method in (*actions, *(f"{UNDO}{action}" for action in actions)):
        service.method.add(name=method, input_type=f".{STRING}", output_type=f".{STRING}")
    methods = {
        action: ServiceAction(execute=f"{PACKAGE}.{name}/{action}", compensate=f"{PACKAGE}.{name}/{UNDO}{action}") for action in actions
    }
    return ExistingService(target=target, actions=methods), FileDescriptorSet(file=[file])


class PlainService(grpc.GenericRpcHandler):
    """Its methods: "/tests.v1.shop/act" is what "shop.act" does, "/tests.v1.shop/undo_act" undoes it."""

    def __init__(self, scripted: participant_pb2_grpc.ParticipantServiceServicer) -> None:
        self._scripted: Any = scripted

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        service, _, method = str(handler_call_details.method).removeprefix("/").partition("/")
        if not service.startswith(f"{PACKAGE}."):
            return None
        name, is_undo = service.removeprefix(f"{PACKAGE}."), method.startswith(UNDO)
        return grpc.unary_unary_rpc_method_handler((self._undo if is_undo else self._do)(f"{name}.{method.removeprefix(UNDO)}"))

    def _do(self, action: str) -> Callable[[bytes, Any], Any]:
        async def execute(sent: bytes, context: Any) -> bytes:
            request = participant_pb2.ExecuteRequest(action=action, input=_input(sent), **_identity(context))
            response = await self._scripted.Execute(request, context)
            match response.WhichOneof("outcome"):
                case "succeeded":
                    return bytes(response.succeeded.output.value)
                case "rejected":
                    await context.abort_with_status(rpc_status.to_status(response.rejected.status))
                case "retry_later":
                    await _ask_for_time(response.retry_later, context)
            return b""

        return execute

    def _undo(self, action: str) -> Callable[[bytes, Any], Any]:
        async def compensate(sent: bytes, context: Any) -> bytes:
            request = participant_pb2.CompensateRequest(action=action, input=_input(sent), **_identity(context))
            request.execute_key = dict(context.invocation_metadata())["idempotency-execute-key"]
            response = await self._scripted.Compensate(request, context)
            if response.HasField("retry_later"):
                await _ask_for_time(response.retry_later, context)
            return b""

        return compensate


def _input(sent: bytes) -> AnyMessage:
    return AnyMessage(type_url=f"type.googleapis.com/{STRING}", value=sent)


def _identity(context: Any) -> dict[str, Any]:
    said = dict(context.invocation_metadata())
    return {
        "saga_id": said["saga-id"],
        "step_id": said["saga-step-id"],
        "attempt": int(said["saga-attempt"]),
        "key": said.get("idempotency-key", ""),  # its settings may call it otherwise
    }


async def _ask_for_time(later: participant_pb2.RetryLater, context: Any) -> None:
    status = status_pb2.Status(code=later.status.code or 14, message=later.status.message, details=later.status.details)
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=later.delay))
    await context.abort_with_status(rpc_status.to_status(status))
