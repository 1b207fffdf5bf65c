"""What a participant answers, read as the wire contract says (R6); not by the coordinator's own code, which it stands beside."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.rpc_errors import find_detail, from_rpc_error
from saga.v1 import participant_pb2

Response: TypeAlias = participant_pb2.ExecuteResponse | participant_pb2.CompensateResponse

_REJECTIONS: Final = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    )
)
_CONFIGURATION_FAULTS: Final = frozenset(
    code.value[0] for code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
)
_CODE_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_SHOWN_CHARS: Final = 160


class Kind(StrEnum):
    """What an answer means."""

    SUCCEEDED = "SUCCEEDED"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    COMPENSATED = "COMPENSATED"
    RETRY_LATER = "RETRY_LATER"
    MISCONFIGURED = "MISCONFIGURED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    kind: Kind
    status: status_pb2.Status
    """Of what is no success; empty otherwise."""
    response: Response | None = None
    """None: the call ended with the status."""
    delay_s: float | None = None
    """When to call again, if the participant said so."""

    @property
    def took_effect(self) -> bool:
        """Whether it says that the effect is there, or begun."""
        return self.kind in {Kind.SUCCEEDED, Kind.ACCEPTED}

    @property
    def is_definite(self) -> bool:
        """Whether calling again would be of no use."""
        return self.kind not in {Kind.RETRY_LATER, Kind.UNKNOWN}

    @property
    def is_timeout(self) -> bool:
        """Whether no answer came in time."""
        return self.kind is Kind.UNKNOWN and self.status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]

    def is_same_as(self, other: "Reply") -> bool:
        """Whether both say the same, and, if they succeeded, with the same output."""
        return self.kind is other.kind and (self.response == other.response if self.took_effect else True)

    def __str__(self) -> str:
        code = _CODE_NAMES.get(self.status.code, str(self.status.code))
        match self.kind:
            case Kind.SUCCEEDED if isinstance(self.response, participant_pb2.ExecuteResponse):
                output = self.response.succeeded.output
                return f"SUCCEEDED {output.TypeName()} {_shown(output.value)}".rstrip()
            case Kind.ACCEPTED | Kind.COMPENSATED | Kind.SUCCEEDED:
                return self.kind.value
            case _:
                return f"{self.kind.value} {code} {_cut(self.status.message)}".rstrip()


def read_execute(response: participant_pb2.ExecuteResponse) -> Reply:
    """What the answer to Execute means."""
    match response.WhichOneof("outcome"):
        case "succeeded":
            return Reply(Kind.SUCCEEDED, status_pb2.Status(), response)
        case "accepted":
            return Reply(Kind.ACCEPTED, status_pb2.Status(), response)
        case "rejected":
            return Reply(Kind.REJECTED, response.rejected.status, response)
        case "retry_later":
            return _later(response.retry_later, response)
        case _:
            return Reply(Kind.UNKNOWN, status_pb2.Status(message="the answer has no outcome"), response)


def read_compensate(response: participant_pb2.CompensateResponse) -> Reply:
    """What the answer to Compensate means."""
    match response.WhichOneof("outcome"):
        case "compensated":
            return Reply(Kind.COMPENSATED, status_pb2.Status(), response)
        case "retry_later":
            return _later(response.retry_later, response)
        case _:
            return Reply(Kind.UNKNOWN, status_pb2.Status(message="the answer has no outcome"), response)


def read_reply(reply: participant_pb2.ExchangeReply) -> Reply:
    """What the answer to a call in a frame means."""
    match reply.WhichOneof("reply"):
        case "executed":
            return read_execute(reply.executed)
        case "compensated":
            return read_compensate(reply.compensated)
        case "status":
            return read_status(reply.status)
        case _:
            return Reply(Kind.UNKNOWN, no_answer("the reply is empty"))


def no_answer(why: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> status_pb2.Status:
    """The status of a call that was not answered."""
    return status_pb2.Status(code=code.value[0], message=why)


def read_error(error: grpc.aio.AioRpcError) -> Reply:
    """What the status means that a call failed with."""
    return read_status(from_rpc_error(error))


def read_status(status: status_pb2.Status) -> Reply:
    """What a plain gRPC status means."""
    retry = find_detail(status, error_details_pb2.RetryInfo)
    if retry is not None:
        return Reply(Kind.RETRY_LATER, status, delay_s=retry.retry_delay.ToTimedelta().total_seconds())
    if status.code in _REJECTIONS:
        return Reply(Kind.REJECTED, status)
    return Reply(Kind.MISCONFIGURED if status.code in _CONFIGURATION_FAULTS else Kind.UNKNOWN, status)


def _later(said: participant_pb2.RetryLater, response: Response) -> Reply:
    return Reply(Kind.RETRY_LATER, said.status, response, said.delay.ToTimedelta().total_seconds())


def _shown(value: bytes) -> str:
    return _cut(repr(value)[1:]) if value else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
