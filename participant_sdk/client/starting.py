"""What a start says, and the request that it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar

from participant_sdk.builder import Saga
from participant_sdk.client.values import checked_id, packed, to_timestamp
from participant_sdk.ids import new_saga_id
from participant_sdk.payloads import Payload, payload_type
from participant_sdk.policies import to_duration
from saga.v1 import coordinator_pb2, saga_pb2

InputT = TypeVar("InputT", bound=Payload)


class SharedStartOptions(TypedDict, total=False):
    """What may be said about starts, of one or of many sagas."""

    key_ttl: timedelta
    """How long an idempotency key is kept. Default 7 days."""
    version: int
    """Of the definition, when it is named by its text. Default: the highest one registered."""
    labels: Mapping[str, str]
    """For people and filters."""
    start_at: datetime
    """When to begin; aware. Default: at once."""
    time_limit: timedelta
    """For the forward way, from its beginning; then the saga turns back. Default: the definition's."""
    inherit_deadline: bool
    """Whether `timeout` bounds the forward way too: whoever asked does not wait longer, so the saga turns back then, or at
    `time_limit` if that is earlier. Needs `timeout`: the time that the caller has left, such as `context.time_remaining()` of the
    gRPC call that is being answered. Default: the saga goes on without its caller."""


class StartOptions(SharedStartOptions, total=False):
    """What may be said about a start."""

    key: str
    """Idempotency key: names this piece of business, e.g. "order-42". With the same key and input the saga that is there
    is answered; with other input AlreadyExists is raised. At most 255 characters."""
    saga_id: str
    """A UUID, to repeat a start of an earlier process. Default: a new one."""


@dataclass(frozen=True, slots=True)
class Start(Generic[InputT]):
    """One start among many: `Start(order, {"key": order.order_id})`."""

    message: InputT
    """The saga's input."""
    options: StartOptions = field(default_factory=StartOptions)
    """What is to be said about this one; it counts before what is said about all."""


def start_request(
    saga: Saga[Any, Any] | str, message: object, options: StartOptions, *, timeout: timedelta | None
) -> coordinator_pb2.StartSagaRequest:
    """The request to start a saga. Raises TypeError and ValueError for what is wrong with it, InvalidRequest for an id that is none."""
    if isinstance(saga, Saga):
        if not isinstance(message, saga.input_type):
            raise TypeError(f"saga {saga.name} starts with {payload_type(saga.input_type).name}, found {type(message).__name__}")
        reference = saga_pb2.DefinitionReference(name=saga.name, version=saga.version)
    else:
        reference = saga_pb2.DefinitionReference(name=saga, version=options.get("version", 0))
    if options.get("inherit_deadline", False) and timeout is None:
        raise ValueError("inherit_deadline needs timeout: how much time the caller has left, found None")
    return coordinator_pb2.StartSagaRequest(
        input=packed(message),
        saga_id=checked_id(options["saga_id"]) if "saga_id" in options else new_saga_id(),
        definition=reference,
        idempotency_key=options.get("key", ""),
        idempotency_key_ttl=to_duration(options.get("key_ttl")),
        labels=options.get("labels"),
        start_at=to_timestamp("start_at", options.get("start_at")),
        time_limit=to_duration(options.get("time_limit")),
        inherit_deadline=options.get("inherit_deadline", False),
    )
