"""What a saga follows: its definition and its message types, to read and write payloads by them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import click
import grpc
from google.protobuf.message import Message

from coordinator.cli.payloads import PayloadError, PayloadTypes
from coordinator.cli.values import read_source
from participant_sdk.client import DefinitionNotFound, SagaClient
from participant_sdk.policies import RetryPolicy
from saga.v1 import saga_pb2

RetryName = Literal["execute_retry", "compensate_retry"]

_DEFAULT_RETRY: Final = RetryPolicy()
"""What the coordinator takes where a definition says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The definition that a saga follows."""

    definition: saga_pb2.SagaDefinition
    types: PayloadTypes

    def step_of(self, step_id: str) -> saga_pb2.StepDefinition | saga_pb2.HookDefinition:
        """The step or the hook of that id. Raises BadParameter if there is none."""
        hooks = {name: hook for name, hook in self._hooks() if self.definition.HasField(name)}
        if step_id in hooks:
            return hooks[step_id]
        found = next((step for step in self.definition.steps if step.id == step_id), None)
        if found is None:
            known = ", ".join([*(step.id for step in self.definition.steps), *hooks])
            which = f"{self.definition.name} v{self.definition.version}"
            raise click.BadParameter(f"{which} has no step {step_id!r}; it has {known}", param_hint="STEP")
        return found

    def read(self, source: str, type_name: str, param_hint: str) -> Message:
        """A message from JSON|@FILE|-. Raises BadParameter for `param_hint`."""
        try:
            return self.types.parse(read_source(source, param_hint), type_name)
        except PayloadError as error:
            raise click.BadParameter(str(error), param_hint=param_hint) from error

    def retry_of(self, step_id: str, name: RetryName, events: Sequence[saga_pb2.Event]) -> RetryPolicy:
        """How a step is repeated by now: as it was changed last in these events, or else as the definition says, or by default."""
        changes = (event.step_policy_changed for event in reversed(events) if event.HasField("step_policy_changed"))
        sources = (
            *(changed.policy for changed in changes if changed.step_id == step_id),
            self.step_of(step_id),
            self.definition.defaults,
        )
        return _policy_of(next((found for source in sources if (found := _find_retry(source, name)) is not None), None))

    def _hooks(self) -> Iterable[tuple[Literal["on_success", "on_failure"], saga_pb2.HookDefinition]]:
        return (("on_success", self.definition.on_success), ("on_failure", self.definition.on_failure))


async def plan_of(client: SagaClient, saga_id: str) -> Plan:
    """What that saga follows. Raises SagaNotFound, DefinitionNotFound."""
    followed = (await client.get(saga_id)).definition
    found = await client.get_definition(followed.name, version=followed.version)
    return Plan(definition=found.definition, types=PayloadTypes(found.descriptors))


async def types_of(client: SagaClient, definition: saga_pb2.DefinitionReference) -> PayloadTypes:
    """The message types of a definition; only the common ones if it is not there."""
    try:
        found = await client.get_definition(definition.name, version=definition.version)
    except DefinitionNotFound:
        return PayloadTypes()  # Payloads are then shown in base64: better than nothing at all.
    return PayloadTypes(found.descriptors)


def _find_retry(
    source: saga_pb2.StepPolicy | saga_pb2.StepDefinition | saga_pb2.HookDefinition | saga_pb2.StepDefaults, name: RetryName
) -> saga_pb2.RetryPolicy | None:
    if name == "execute_retry":
        return source.execute_retry if source.HasField("execute_retry") else None
    if isinstance(source, saga_pb2.HookDefinition):
        return None  # What is called after the end is not undone.
    return source.compensate_retry if source.HasField("compensate_retry") else None


def _policy_of(message: saga_pb2.RetryPolicy | None) -> RetryPolicy:
    """A policy of the wire; what it leaves unset is the coordinator's default, as it is there."""
    if message is None:
        return _DEFAULT_RETRY
    return RetryPolicy(
        max_attempts=message.max_attempts,
        initial_backoff=message.initial_backoff.ToTimedelta() if message.HasField("initial_backoff") else _DEFAULT_RETRY.initial_backoff,
        multiplier=message.multiplier or _DEFAULT_RETRY.multiplier,
        max_backoff=message.max_backoff.ToTimedelta() if message.HasField("max_backoff") else _DEFAULT_RETRY.max_backoff,
        non_retryable_codes=frozenset(code for code in grpc.StatusCode if code.value[0] in message.non_retryable_codes),
    )
