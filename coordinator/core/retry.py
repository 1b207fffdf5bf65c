"""When an attempt is repeated: arithmetic only."""

from hashlib import blake2b
from typing import Final

from coordinator.core.plan import RetryPolicy
from coordinator.core.values import Direction, SagaId, StepId

_EXPONENT_MAX: Final = 100
"""Beyond it the growth no longer matters, and a float would overflow."""


def backoff_us(policy: RetryPolicy, failures: int) -> int:
    """Wait after the given number of failures, before jitter, in microseconds: min(initial * multiplier^(failures - 1), max).

    With the defaults: 0.2 s, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, …
    """
    exponent = min(max(failures, 1) - 1, _EXPONENT_MAX)
    return int(min(policy.initial_backoff_us * policy.multiplier**exponent, policy.backoff_max_us))


def jittered_us(wait_us: int, saga_id: SagaId, step_id: StepId, direction: Direction, attempt: int) -> int:
    """A wait drawn from [wait/2, wait] by a stable hash of what is waited for, so that replay agrees and no chance is needed."""
    seed = f"{saga_id}/{step_id}/{direction.value}/{attempt}".encode()
    drawn = int.from_bytes(blake2b(seed, digest_size=8).digest())
    half = wait_us // 2
    return wait_us - half + ((half * drawn) >> 64)
