"""Everything that can happen to a saga from outside, in one file."""

from dataclasses import dataclass

from coordinator.core.values import AttemptKey, Failure, Instant, Payload, TraceContext


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
class KeyExpired:
    """The participant may have forgotten the key: it did nothing and cannot tell what was done (R21)."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensated:
    """It is undone."""

    handler_ran: bool


Outcome = Succeeded | Rejected | RetryLater | Unknown | Misconfigured | NotSent | KeyExpired | Compensated


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Somebody asks the saga to turn back. A command: refused when the saga has ended."""

    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Recover:
    """A coordinator took the saga up after a crash."""


Input = Start | Replied | Wake | Cancel | Recover
