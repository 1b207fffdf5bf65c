"""The answer of a handler that has begun a step which is finished later."""

from datetime import timedelta
from typing import Final, final

TIME_LIMIT_MIN: Final = timedelta(seconds=1)
TIME_LIMIT_MAX: Final = timedelta(days=366)


@final
class Accepted:
    """Returned by a handler whose step is finished later, by a person or by a long job: `return Accepted(timedelta(days=3))`.

    The handler is annotated `-> Approved | Accepted`. What it wrote through `step.session` is committed; `step.completion_token` is
    what `Participant.completing` and `SagaClient.complete_step` are given later (R24). The token is worth the result: who has it can
    finish the step, so hand it only to who may.
    """

    # No dataclass: those are payloads, and type checkers must be able to tell the two apart.

    __slots__ = ("time_limit",)

    def __init__(self, time_limit: timedelta) -> None:
        """`time_limit`: how long that may take, from when the coordinator hears of it; 1 s to 366 days, and no longer than the barrier
        remembers keys.

        A heartbeat extends it. When it is over, nobody knows whether the step took effect, and it is compensated.
        """
        if not TIME_LIMIT_MIN <= time_limit <= TIME_LIMIT_MAX:
            raise ValueError(f"an accepted step may take 1 s to 366 days, found {time_limit}; a heartbeat extends it")
        self.time_limit: Final = time_limit

    def __repr__(self) -> str:
        return f"Accepted({self.time_limit!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accepted) and other.time_limit == self.time_limit

    def __hash__(self) -> int:
        return hash(self.time_limit)
