"""The answer of a handler that has begun a step which is finished later."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

TIME_LIMIT_MIN: Final = timedelta(seconds=1)
TIME_LIMIT_MAX: Final = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Returned by a handler whose step is finished later, by a person or by a long job: `return Accepted(timedelta(days=3))`.

    The handler is annotated `-> Approved | Accepted`. What it wrote through `step.session` is committed; `step.completion_token` is
    what `Participant.completing` and `SagaClient.complete_step` are given later (R24). The token is worth the result: who has it can
    finish the step, so hand it only to who may.
    """

    time_limit: timedelta
    """How long that may take, from when the coordinator hears of it; 1 s to 366 days, and no longer than the barrier remembers keys.

    A heartbeat extends it. When it is over, nobody knows whether the step took effect, and it is compensated.
    """

    def __post_init__(self) -> None:
        if not TIME_LIMIT_MIN <= self.time_limit <= TIME_LIMIT_MAX:
            raise ValueError(f"an accepted step may take 1 s to 366 days, found {self.time_limit}; a heartbeat extends it")
