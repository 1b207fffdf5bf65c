"""The channel that everything a client offers goes through, and how long its calls go on trying."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, cast

import grpc

from participant_sdk.client.addresses import parse_addresses
from participant_sdk.client.channel import open_channel
from participant_sdk.client.failover import FailoverChannel
from participant_sdk.client.retries import Retries
from saga.v1 import coordinator_pb2_grpc, operator_pb2_grpc


class Connection:
    """A coordinator that is called. It is dialled when it is first called."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout: timedelta,
        channel: grpc.aio.Channel | None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`channel`: becomes the connection's own; None: one to `address`, with TLS if there are `credentials`.

        Raises ValueError for what is no address.
        """
        if channel is not None and credentials is not None:
            raise ValueError("expected channel or channel_credentials, found both; a channel has its own credentials already")
        self._targets: Final = parse_addresses(address)
        self._credentials: Final = credentials
        self._timeout: Final = timeout
        self._channel = channel
        self._saga_service: coordinator_pb2_grpc.SagaServiceAsyncStub | None = None
        self._operator_service: operator_pb2_grpc.OperatorServiceAsyncStub | None = None
        self._is_closed = False

    @property
    def address(self) -> str:
        """Where it is; several addresses with commas between."""
        return ",".join(self._targets)

    @property
    def saga_service(self) -> "coordinator_pb2_grpc.SagaServiceAsyncStub":
        """What starts sagas and follows them. Raises RuntimeError when the client is closed."""
        if self._is_closed or self._saga_service is None:
            self._saga_service = coordinator_pb2_grpc.SagaServiceStub(self._open())
        return self._saga_service

    @property
    def operator_service(self) -> "operator_pb2_grpc.OperatorServiceAsyncStub":
        """What looks after sagas. Raises RuntimeError when the client is closed."""
        if self._is_closed or self._operator_service is None:
            self._operator_service = operator_pb2_grpc.OperatorServiceStub(self._open())
        return self._operator_service

    def retries(self, timeout: timedelta | None = None) -> Retries:
        """For what the coordinator answers at once: everything together within `timeout`, or else the client's."""
        longest = timeout if timeout is not None else self._timeout
        return Retries(outage=longest, timeout=longest)

    def waiting(self, timeout: timedelta | None) -> Retries:
        """For what takes as long as a saga takes: only outages are held against the client's timeout."""
        return Retries(outage=self._timeout, timeout=timeout)

    async def close(self) -> None:
        """Calls under way are cut off. Safe to call twice."""
        self._is_closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise RuntimeError("this SagaClient is closed; make a new one")
        # Not before there is a loop: a channel belongs to the loop that runs when it is made.
        if self._channel is None:
            self._channel = self._dial()
        return self._channel

    def _dial(self) -> grpc.aio.Channel:
        if len(self._targets) == 1:
            return open_channel(self._targets[0], self._credentials)
        # The generated stubs ask for no more than is there.
        return cast("grpc.aio.Channel", FailoverChannel(self._targets, self._credentials))
