"""How a guarded request ends, before it is put into the words of HTTP or gRPC."""

from dataclasses import dataclass
from typing import TypeAlias

from participant_sdk.idempotency.policy import Meaning
from participant_sdk.idempotency.verdict import StoredAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A handler has answered."""

    answer: StoredAnswer
    """What is to be stored of it."""
    meaning: Meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Give this answer."""

    answer: StoredAnswer
    is_replay: bool
    """Whether it was another request that ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StillRunning:
    """Refuse: the time to wait for the run under way is over."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class KeyReused:
    """Refuse: the key was used for another request."""


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """Refuse: a run before this one ended, and nobody knows whether it took effect."""


@dataclass(frozen=True, slots=True)
class StoreAway:
    """Refuse: the store cannot be used. Nothing ran."""


@dataclass(frozen=True, slots=True)
class AnswerNotStored:
    """The handler ran, and its answer is withheld: it is not stored, so that a repetition would not get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBroke:
    """The handler raised. Nobody knows whether it took effect."""

    error: BaseException


Outcome: TypeAlias = Answered | StillRunning | KeyReused | OutcomeUnknown | StoreAway | AnswerNotStored | RunBroke
