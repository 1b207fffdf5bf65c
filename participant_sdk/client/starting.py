"""What a start says, and the request that it becomes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict, TypeVar

from google.protobuf.message import Message

from participant_sdk.builder import Saga
from participant_sdk.client.values import checked_id, to_timestamp
from participant_sdk.ids import new_saga_id
from participant_sdk.policies import to_duration
from saga.v1 import coordinator_pb2, saga_pb2

InputT = TypeVar("InputT", bound=Message)


class StartOptions(TypedDict, total=False):
    """What may be said about a start."""

    key: str
    """Idempotency key: names this piece of business, e.g. "order-42". With the same key and input the saga that is there
    is answered; with other input AlreadyExists is raised. At most 255 characters."""
    key_ttl: timedelta
    """How long the key is kept. Default 7 days."""
    saga_id: str
    """A UUID, to repeat a start of an earlier process. Default: a new one."""
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


def start_request(
    saga: Saga[InputT] | str, message: Message, options: StartOptions, *, timeout: timedelta | None
) -> coordinator_pb2.StartSagaRequest:
    """The request to start a saga. Raises TypeError and ValueError for what is wrong with it, InvalidRequest for an id that is none."""
    if isinstance(saga, Saga):
        if not isinstance(message, saga.input_type):
            expected, found = saga.input_type.DESCRIPTOR.full_name, type(message).__name__
            raise TypeError(f"saga {saga.name} starts with {expected}, found {found}")
        reference = saga_pb2.DefinitionReference(name=saga.name, version=saga.version)
    else:
        reference = saga_pb2.DefinitionReference(name=saga, version=options.get("version", 0))
    if options.get("inherit_deadline", False) and timeout is None:
        raise ValueError("inherit_deadline needs timeout: how much time the caller has left, found None")
    request = coordinator_pb2.StartSagaRequest(
        saga_id=checked_id(options["saga_id"]) if "saga_id" in options else new_saga_id(),
        definition=reference,
        idempotency_key=options.get("key", ""),
        idempotency_key_ttl=to_duration(options.get("key_ttl")),
        labels=options.get("labels"),
        start_at=to_timestamp("start_at", options.get("start_at")),
        time_limit=to_duration(options.get("time_limit")),
        inherit_deadline=options.get("inherit_deadline", False),
    )
    request.input.Pack(message, deterministic=True)
    return request
