"""Laws of the waits between attempts."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.plan import RetryPolicy
from coordinator.core.retry import backoff_us, jittered_us
from coordinator.core.values import Direction, SagaId, StepId
from tests.builders import SAGA, seconds

policies = st.builds(
    RetryPolicy,
    initial_backoff_us=st.integers(1, seconds(3_600)),
    multiplier=st.floats(1, 100),
    backoff_max_us=st.integers(1, seconds(86_400)),
)
words = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=64)


@given(policies, st.integers(0, 100_000))
def test_backoff_is_never_above_the_cap_nor_below_the_smaller_of_both_ends(policy: RetryPolicy, failures: int) -> None:
    wait = backoff_us(policy, failures)
    assert min(policy.initial_backoff_us, policy.backoff_max_us) <= wait <= policy.backoff_max_us


@given(policies, st.integers(1, 1_000))
def test_backoff_never_shrinks(policy: RetryPolicy, failures: int) -> None:
    assert backoff_us(policy, failures) <= backoff_us(policy, failures + 1)


@given(policies, st.integers(1, 20))
def test_backoff_follows_its_formula_up_to_the_cap(policy: RetryPolicy, failures: int) -> None:
    exact: float = policy.initial_backoff_us
    for _ in range(failures - 1):
        exact = min(exact * policy.multiplier, policy.backoff_max_us)
    expected = min(exact, policy.backoff_max_us)
    assert abs(backoff_us(policy, failures) - expected) <= 1 + expected * 1e-9


def test_default_backoff_is_the_series_of_the_protocol() -> None:
    series = [backoff_us(RetryPolicy(), failures) for failures in range(1, 11)]
    assert series == [seconds(wait) for wait in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30)]


@given(st.integers(0, seconds(86_400)), words, words, st.sampled_from(Direction), st.integers(1, 100_000))
def test_jittered_wait_is_between_half_and_whole(wait_us: int, saga: str, step: str, direction: Direction, attempt: int) -> None:
    jittered = jittered_us(wait_us, SagaId(saga), StepId(step), direction, attempt)
    assert wait_us / 2 <= jittered <= wait_us


@given(words, words, st.sampled_from(Direction), st.integers(1, 1_000))
def test_jitter_is_the_same_every_time(saga: str, step: str, direction: Direction, attempt: int) -> None:
    first = jittered_us(1_000_000, SagaId(saga), StepId(step), direction, attempt)
    assert jittered_us(1_000_000, SagaId(saga), StepId(step), direction, attempt) == first


def test_jitter_is_stable_between_releases() -> None:
    """Golden: a replay by another version must agree with what the journal says was due."""
    waits = [jittered_us(1_000_000, SAGA, StepId("charge"), direction, attempt) for direction in Direction for attempt in (1, 2, 3)]
    assert waits == [607_127, 605_136, 953_852, 958_047, 978_525, 919_654]


def test_jitter_spreads_over_its_whole_range() -> None:
    waits = sorted(jittered_us(1_000, SagaId(f"saga {number}"), StepId("charge"), Direction.EXECUTE, 1) for number in range(1_000))
    tenths = [sum(500 + 50 * tenth <= wait < 550 + 50 * tenth for wait in waits) for tenth in range(10)]
    assert min(tenths) > 60
