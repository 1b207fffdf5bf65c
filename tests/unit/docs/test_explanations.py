"""What the explanations show is a definition that is accepted, and what they say of defaults is what the code does."""

import re
from dataclasses import fields
from typing import Any

from coordinator.core.plan import StepPlan
from participant_sdk import RetryPolicy, Saga
from tests.documents import ROOT

PAGE = ROOT / "docs" / "explanation" / "kinds-and-policies.md"
SNIPPET = re.compile(r"<!-- the test-suite runs this -->\n```python\n(.*?)```", re.DOTALL)
LIMIT = re.compile(r"^\| `(\w+)` \| (\d+) (s|min|h) \|", re.MULTILINE)
SECONDS = {"s": 1, "min": 60, "h": 3600}


def test_example_of_kinds_is_sound() -> None:
    (code,) = SNIPPET.findall(PAGE.read_text())
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    saga = names["buy_ticket"]
    assert isinstance(saga, Saga)
    assert len(saga.definition().steps) == 6


def test_limits_are_those_of_the_coordinator() -> None:
    shown = {name: int(count) * SECONDS[unit] * 1_000_000 for name, count, unit in LIMIT.findall(PAGE.read_text())}
    kept = {field.name: field.default for field in fields(StepPlan)}
    assert shown == {
        "attempt_timeout": kept["attempt_timeout_us"],
        "execute_time_limit": kept["execute_time_limit_us"],
        "compensate_time_limit": kept["recovery_time_limit_us"],
    }


def test_backoff_is_that_of_the_sdk() -> None:
    policy = RetryPolicy()
    said = f"wait {policy.initial_backoff.total_seconds()} s, then twice as long each time, at most {policy.max_backoff.seconds} s"
    assert (policy.multiplier, policy.max_attempts) == (2.0, 0)
    assert said in PAGE.read_text()
