"""Everything that can happen to a saga from outside, in one file."""

from coordinator.core.frozen import dataclass
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import AttemptKey, Failure, Instant, Payload, StepId, TraceContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Somebody starts the saga. Only ever the first input."""

    input: Payload
    labels: tuple[tuple[str, str], ...] = ()
    idempotency_key: str = ""
    start_at: Instant | None = None
    """When to begin; None: at once."""
    time_limit_us: int | None = None
    """Overrides the plan's; None: the plan's."""
    trace: TraceContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """It took effect."""

    output: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """It had no effect and is refused. Believed only as far as R5 says."""

    failure: Failure
    sealed: bool = False
    """Whether no attempt of this key can take effect later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """It is begun; the participant finishes it later (R24)."""

    time_limit_us: int
    """How long that may take, from the moment the answer is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLater:
    """It had no effect; the participant asks to be called again. No attempt of the policy (R7)."""

    failure: Failure
    delay_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody knows whether it took effect."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Misconfigured:
    """The participant is set up wrongly; this attempt had no effect (R6)."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent:
    """The call was never handed to the network. No attempt of the policy (R7)."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatched:
    """The participant takes or returns other message types than the definition says. The call was not sent; a person is needed."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExpired:
    """The participant may have forgotten the key: it did nothing and cannot tell what was done (R21)."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensated:
    """It is undone."""

    handler_ran: bool


Outcome = Succeeded | Rejected | Accepted | RetryLater | Unknown | Misconfigured | NotSent | Mismatched | KeyExpired | Compensated


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """A call that was owed has ended. Every call that was handed out ends in exactly one of these."""

    attempt: AttemptKey
    outcome: Outcome
    sent_at: Instant | None = None
    """When it was handed to the network; None if it never was."""


@dataclass(frozen=True, slots=True)
class Wake:
    """An instant that `pending` asked to be woken at has come. Harmless at any other time."""


@dataclass(frozen=True, slots=True)
class Recover:
    """A coordinator took the saga up after a crash."""


# ── Commands: refused, without changing anything, when the state of the saga forbids them ────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Somebody asks the saga to turn back (R10)."""

    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A person stops the saga for a while."""

    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """A person lets the saga go on."""

    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    """A person ends the saga as it stands; nothing is undone by that (R15)."""

    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStep:
    """A person has a step tried again now."""

    step_id: StepId
    input: Payload | None = None
    """Its input from now on; None: as before. Only a step that is known to have had no effect may get another one (R1)."""
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedSucceeded:
    """It took effect."""

    output: Payload


@dataclass(frozen=True, slots=True)
class ResolvedSkipped:
    """It had no effect; the saga goes on without it."""


@dataclass(frozen=True, slots=True)
class ResolvedRejected:
    """It had no effect and cannot be done; the saga turns back."""


@dataclass(frozen=True, slots=True)
class ResolvedCompensated:
    """It is undone."""


Resolution = ResolvedSucceeded | ResolvedSkipped | ResolvedRejected | ResolvedCompensated


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveStep:
    """A person says how a step ended (R17)."""

    step_id: StepId
    resolution: Resolution
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """How a step is repeated from now on; None: as before."""

    execute_retry: RetryPolicy | None = None
    compensate_retry: RetryPolicy | None = None
    attempt_timeout_us: int | None = None
    execute_time_limit_us: int | None = None
    recovery_time_limit_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePolicy:
    """A person changes how a step of this saga is repeated."""

    step_id: StepId
    change: PolicyChange
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveOutput:
    """A person says what the saga returns, because the expression for it failed."""

    output: Payload
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """A person knows of an incident that asks for nothing else."""

    incident_id: int
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteStep:
    """A participant finishes a step that it accepted (R24)."""

    step_id: StepId
    round: int
    """Round of the key that the token was made for."""
    result: Succeeded | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A participant still works on a step that it accepted."""

    step_id: StepId
    round: int
    """Round of the key that the token was made for."""
    time_limit_us: int | None
    """How long it may take from now; None: as long as when it was accepted."""
    progress: Payload | None = None


Command = (
    Cancel | Pause | Resume | Terminate | RetryStep | ResolveStep | ChangePolicy | ResolveOutput | Acknowledge | CompleteStep | Heartbeat
)  # fmt: skip
Input = Start | Replied | Wake | Recover | Command
