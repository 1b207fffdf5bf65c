"""Everything that the shell can owe the world, in one file. EVENTS ARE COMMITTED BEFORE ANY EFFECT THEY JUSTIFY IS RELEASED."""

from typing import NamedTuple

from coordinator.core.frozen import dataclass
from coordinator.core.plan import OutputCheck
from coordinator.core.values import AttemptKey, DefinitionKey, Instant, Payload, SagaId, TraceContext


class OwedCall(NamedTuple):
    """A call that the saga owes, cheaply named; `call_participant` makes the whole effect when it is to be released."""

    attempt: AttemptKey
    not_before: Instant
    """When the call may be handed to the network."""


class Pending(NamedTuple):
    """What a saga owes as it stands: the same in normal running and after a crash."""

    calls: tuple[OwedCall, ...]
    wake_at: Instant | None
    """When `Wake` would decide something; None: never. The instants of calls are not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallParticipant:
    """Call a participant. Answered by exactly one `Replied`."""

    saga_id: SagaId
    definition: DefinitionKey
    attempt: AttemptKey
    action: str
    key: str
    """Idempotency key of this call."""
    execute_key: str
    """Idempotency key of the execution; the same as `key` when this is it."""
    input: Payload
    first_attempt_at: Instant
    """When the first attempt to execute was due (R21)."""
    timeout_us: int
    """Time for this attempt, from the moment it is handed to the network."""
    send_before: Instant | None
    """The limit of the step or saga: after it the call must not be sent, and a call under way ends with it; None: none (R13)."""
    output: Payload | None
    """For a compensation: what the execution returned; None: unknown. For an execution: always None."""
    input_type: str
    """What the definition says that the action takes; empty: nothing."""
    output_type: str
    """What the definition says that the action returns; empty: nothing."""
    check_output: OutputCheck
    """What an execution may return (R6)."""
    trace: TraceContext
