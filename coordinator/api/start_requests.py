"""Starts as they are asked for: where they belong, which definition they follow, and what they are when they have been checked."""

from typing import Any, Final

from coordinator.api import requests
from coordinator.api.caller import Caller
from coordinator.api.checks import definition_name_of
from coordinator.api.errors import not_found, unavailable
from coordinator.api.forwarding import Forwarding
from coordinator.api.starts import Awaited, Starts
from coordinator.catalog import DefinitionCatalog
from coordinator.codec.definitions import CompiledDefinition
from coordinator.engine.commands import StartCommand
from coordinator.engine.ports import Clock, Journal
from participant_sdk.rpc_errors import ErrorReason
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2

STALLED_US_MAX: Final = 2_000_000
"""How long the journal may have been failing before starts are refused at once, so that they do not pile up."""


class StartRequests:
    """Turns requests into commands, and has them begun."""

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        catalog: DefinitionCatalog,
        forwarding: Forwarding,
        starts: Starts,
        payload_bytes_max: int,
        trace_sample_ratio: float,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._catalog = catalog
        self._forwarding = forwarding
        self._starts = starts
        self._payload_bytes_max = payload_bytes_max
        self._trace_sample_ratio = trace_sample_ratio

    async def answer(
        self, request: coordinator_pb2.StartSagaRequest, caller: Caller, *, is_forwarded: bool = False
    ) -> coordinator_pb2.StartSagaResponse:
        """Starts it, here or where it belongs, and answers, however long that takes. Raises RefusedError.

        `is_forwarded`: another node has passed it on; then it is started here or not at all.
        """
        address = None if is_forwarded else await self._forwarding.address_for_start()
        if address is not None:
            answer: Any = await self._forwarding.pass_on(coordinator_pb2_grpc.SagaServiceStub, "StartSaga", address, request, caller)
            passed: coordinator_pb2.StartSagaResponse = answer
            return passed
        compiled = await self.definition(request.definition)
        return await self._starts.start(self._command_of(request, compiled, caller), awaited=Awaited.by(request))

    def read_now(self, request: coordinator_pb2.StartSagaRequest, caller: Caller) -> StartCommand | None:
        """The start that a request asks for; None: that cannot be told without waiting. Raises RefusedError."""
        if self._forwarding.may_start_elsewhere:
            return None
        compiled = self._catalog.find_compiled(request.definition.name, request.definition.version)
        return None if compiled is None else self._command_of(request, compiled, caller)

    async def definition(self, reference: saga_pb2.DefinitionReference) -> CompiledDefinition:
        """A registered definition. Raises RefusedError if there is none."""
        name = definition_name_of(reference.name, "definition.name")
        compiled = await self._catalog.find(name, reference.version)
        if compiled is None:
            which = f"{reference.name!r} version {reference.version}" if reference.version else f"{reference.name!r}"
            message = f"definition {which} is not registered; register it, or list what there is with ListDefinitions"
            raise not_found(ErrorReason.DEFINITION_NOT_FOUND, "saga.v1.SagaDefinition", reference.name, message)
        return compiled

    def _command_of(self, request: coordinator_pb2.StartSagaRequest, compiled: CompiledDefinition, caller: Caller) -> StartCommand:
        if self._journal.stalled_for_us > STALLED_US_MAX:
            raise unavailable(ErrorReason.JOURNAL_UNAVAILABLE, "the database takes nothing now; send the same request again")
        return requests.start_command(
            request,
            compiled,
            caller=caller,
            now=self._clock.now(),
            payload_bytes_max=self._payload_bytes_max,
            sample_ratio=self._trace_sample_ratio,
        )
