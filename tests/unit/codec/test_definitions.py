"""Definitions: every rule, what is filled in, and the plan that comes out."""

import re
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.codec.definitions import (
    DefinitionInvalidError,
)
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.values import Payload, StepKind
from participant_sdk.definitions.graph import STEPS_MAX
from participant_sdk.definitions.problems import PROBLEMS_MAX
from saga.v1 import saga_pb2
from tests.builders import seconds
from tests.unit.codec.message_files import file_with
from tests.unit.codec.plain_definitions import CHARGED, ORDER, RESERVED, compiled, definition, known_values, step

COMPILE_S_MAX = 2.0
"""What a definition of the largest size may take at most, on a machine that does other things too."""


def problems_of(made: saga_pb2.SagaDefinition) -> dict[str, str]:
    with pytest.raises(DefinitionInvalidError) as caught:
        compiled(made)
    return {problem.field: problem.description for problem in caught.value.problems}


def after_of(plan: SagaPlan) -> dict[str, set[str]]:
    return {one.id: {plan.steps[index].id for index in before} for one, before in zip(plan.steps, plan.predecessors, strict=True)}


RESERVED_NAMES = ("output", "error", "on_success", "on_failure", "true", "in", "namespace")


def hook(**fields: object) -> saga_pb2.HookDefinition:
    plain = {"action": "mail.send", "input_type": ORDER, "output_type": RESERVED}
    return saga_pb2.HookDefinition(**{**plain, **fields})  # type: ignore[arg-type]


# ── Rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

Change = Callable[[saga_pb2.SagaDefinition], object]


def changed(change: Change) -> saga_pb2.SagaDefinition:
    made = definition(step("reserve"), step("charge", output_type=CHARGED))
    change(made)
    return made


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        (lambda d: setattr(d, "name", ""), "definition.name", "1 to 128 letters"),
        (lambda d: setattr(d, "name", "a" * 129), "definition.name", "1 to 128 letters"),
        (lambda d: setattr(d, "name", "-leading"), "definition.name", "1 to 128 letters"),
        (lambda d: setattr(d, "name", "a\0b"), "definition.name", "1 to 128 letters"),
        (lambda d: setattr(d, "name", "line\n"), "definition.name", "1 to 128 letters"),
        (lambda d: setattr(d, "name", "bestellüng"), "definition.name", "1 to 128 letters"),
        (lambda d: setattr(d, "version", 0), "definition.version", "1 or more"),
        (lambda d: setattr(d, "version", 2**31), "definition.version", "at most 2147483647"),
        (lambda d: setattr(d, "input_type", ""), "definition.input_type", "found nothing"),
        (lambda d: d.ClearField("steps"), "definition.steps", "1 to 256 steps, found 0"),
        (lambda d: d.steps.extend([step("x")] * STEPS_MAX), "definition.steps", "1 to 256 steps, found 258"),
        (lambda d: d.time_limit.FromTimedelta(timedelta()), "definition.time_limit", "1 ms to 366 days, found 0 s"),
        (lambda d: d.time_limit.FromTimedelta(timedelta(days=367)), "definition.time_limit", "1 ms to 366 days"),
        (lambda d: setattr(d.time_limit, "nanos", 2**31 - 1), "definition.time_limit", "out of range"),
        (lambda d: d.defaults.attempt_timeout.FromTimedelta(-timedelta(1)), "definition.defaults.attempt_timeout", "1 ms to 366 days"),
        (lambda d: setattr(d.defaults.execute_retry, "multiplier", 0.9), "definition.defaults.execute_retry.multiplier", "1 to 100"),
        (lambda d: d.labels.update({"": "x"}), "definition.labels['']", "key of 1 to 63"),
        (lambda d: d.labels.update({"k" * 64: "x"}), f"definition.labels['{'k' * 64}']", "key of 1 to 63"),
        (lambda d: d.labels.update({"team": "x" * 256}), "definition.labels['team']", "at most 255"),
        (lambda d: d.labels.update({"team": "a\0b"}), "definition.labels['team']", "without NUL"),
        (lambda d: d.labels.update({str(n): "" for n in range(65)}), "definition.labels", "at most 64 labels, found 65"),
        (lambda d: setattr(d.steps[1], "id", ""), "definition.steps[1].id", "a letter"),
        (lambda d: setattr(d.steps[1], "id", "1st"), "definition.steps[1].id", "a letter"),
        (lambda d: setattr(d.steps[1], "id", "a" * 65), "definition.steps[1].id", "a letter"),
        (lambda d: setattr(d.steps[1], "id", "charge-it"), "definition.steps[1].id", "a letter"),
        (lambda d: setattr(d.steps[1], "id", "input"), "definition.steps[1].id", "reserved"),
        (lambda d: setattr(d.steps[1], "id", "ran"), "definition.steps[1].id", "reserved"),
        (lambda d: setattr(d.steps[1], "id", "null"), "definition.steps[1].id", "reserved"),
        (lambda d: setattr(d.steps[1], "id", "reserve"), "definition.steps[1].id", "must be unique"),
        (lambda d: setattr(d.steps[1], "action", ""), "definition.steps[1].action", "participant.action"),
        (lambda d: setattr(d.steps[1], "action", "payments"), "definition.steps[1].action", "participant.action"),
        (lambda d: setattr(d.steps[1], "action", "Payments.charge"), "definition.steps[1].action", "participant.action"),
        (lambda d: setattr(d.steps[1], "action", "payments.charge.it"), "definition.steps[1].action", "participant.action"),
        (
            lambda d: setattr(d.steps[1], "kind", 77),
            "definition.steps[1].kind",
            "COMPENSATABLE, READ_ONLY, PIVOT, RETRIABLE, BEST_EFFORT, found 77",
        ),
        (lambda d: setattr(d.steps[1], "input_type", ""), "definition.steps[1].input_type", "found nothing"),
        (lambda d: setattr(d.steps[1], "output_type", ""), "definition.steps[1].output_type", "found nothing"),
        (lambda d: setattr(d.steps[1], "output_type", "x" * 999), "definition.steps[1].output_type", "not in the descriptors"),
        (lambda d: d.steps[1].attempt_timeout.SetInParent(), "definition.steps[1].attempt_timeout", "found 0 s"),
        (lambda d: d.steps[1].execute_time_limit.SetInParent(), "definition.steps[1].execute_time_limit", "found 0 s"),
        (lambda d: d.steps[1].compensate_time_limit.SetInParent(), "definition.steps[1].compensate_time_limit", "found 0 s"),
        (
            lambda d: d.steps[1].execute_retry.initial_backoff.SetInParent(),
            "definition.steps[1].execute_retry.initial_backoff",
            "found 0 s",
        ),
        (lambda d: d.steps[1].compensate_retry.max_backoff.SetInParent(), "definition.steps[1].compensate_retry.max_backoff", "found 0 s"),
        (lambda d: setattr(d.steps[1].execute_retry, "multiplier", 101), "definition.steps[1].execute_retry.multiplier", "found 101"),
        (lambda d: setattr(d.steps[1].execute_retry, "multiplier", float("nan")), "definition.steps[1].execute_retry.multiplier", "nan"),
        (lambda d: setattr(d.steps[1].execute_retry, "multiplier", float("inf")), "definition.steps[1].execute_retry.multiplier", "inf"),
        (lambda d: setattr(d.steps[1].execute_retry, "multiplier", -1), "definition.steps[1].execute_retry.multiplier", "found -1"),
        (
            lambda d: d.steps[1].execute_retry.non_retryable_codes.extend([14, 0]),
            "definition.steps[1].execute_retry.non_retryable_codes[1]",
            "from 1 to 16, found 0",
        ),
        (
            lambda d: d.steps[1].execute_retry.non_retryable_codes.extend([1] * 17),
            "definition.steps[1].execute_retry.non_retryable_codes",
            "at most 16 codes, found 17",
        ),
        (lambda d: d.steps[1].after.step_ids.append("ship"), "definition.steps[1].after.step_ids[0]", "no step 'ship'"),
        (lambda d: d.steps[1].after.step_ids.extend(["reserve"] * 2), "definition.steps[1].after.step_ids[1]", "named twice"),
        (lambda d: d.steps[1].after.step_ids.extend([""] * 257), "definition.steps[1].after.step_ids", "at most 256 ids, found 257"),
        (lambda d: d.steps[1].after.step_ids.append("charge"), "definition.steps", "without cycles, found: charge before charge"),
        (lambda d: d.steps[0].after.step_ids.append("charge"), "definition.steps", "without cycles, found: "),
        (lambda d: setattr(d.steps[1], "input", "ship"), "definition.steps[1].input", 'no variable "ship" here; there is: input'),
        (lambda d: setattr(d.steps[0], "input", "charge"), "definition.steps[0].input", '"charge" comes after "reserve"'),
        (lambda d: setattr(d.steps[1], "input", "charge"), "definition.steps[1].input", '"charge" is this step itself'),
        (lambda d: setattr(d.steps[1], "input", "reserve"), "definition.steps[1].input", '"reserve" is a shop.v1.Reserved'),
        (lambda d: setattr(d.steps[1], "input_type", CHARGED), "definition.steps[1].input", '"input" is a shop.v1.PlaceOrder'),
        (lambda d: setattr(d, "output", "ship"), "definition.output", 'no variable "ship" here; there is: charge, input'),
        (lambda d: setattr(d, "output_type", RESERVED), "definition.output_type", "expected an output too"),
        (
            lambda d: d.MergeFrom(saga_pb2.SagaDefinition(output="input", output_type="x.Y")),
            "definition.output_type",
            "not in the descriptors",
        ),
        (
            lambda d: setattr(d.steps[1], "without_compensation", True),
            "definition.steps[1].without_compensation",
            "only a BEST_EFFORT step",
        ),
        (lambda d: d.on_success.CopyFrom(hook(action="x")), "definition.on_success.action", "participant.action"),
        (lambda d: d.on_failure.CopyFrom(hook(input_type="")), "definition.on_failure.input_type", "found nothing"),
        (lambda d: d.on_failure.CopyFrom(hook(output_type="x.Y")), "definition.on_failure.output_type", "not in the descriptors"),
        (lambda d: d.on_success.CopyFrom(hook(time_limit={"seconds": 0})), "definition.on_success.time_limit", "1 ms to 366 days"),
        (
            lambda d: d.on_success.CopyFrom(hook(attempt_timeout={"seconds": -1})),
            "definition.on_success.attempt_timeout",
            "1 ms to 366 days",
        ),
        (
            lambda d: d.on_success.CopyFrom(hook(execute_retry={"multiplier": 0.5})),
            "definition.on_success.execute_retry.multiplier",
            "found 0.5",
        ),
        *((lambda d, name=name: setattr(d.steps[1], "id", name), "definition.steps[1].id", "reserved") for name in RESERVED_NAMES),
    ],
)
def test_broken_rule_is_told_with_its_field(change: Change, field: str, told: str) -> None:
    problems = problems_of(changed(change))
    assert list(problems) == [field]
    assert told in problems[field]


def test_input_type_that_did_not_come_with_the_definition_is_told() -> None:
    assert "not in the descriptors" in problems_of(definition(input_type="shop.v1.Missing"))["definition.input_type"]


def test_every_problem_is_told_at_once() -> None:
    made = definition(step("1", action="no-dot", kind=77), step("b", after=["nowhere"]), name="", version=0)
    assert set(problems_of(made)) == {
        "definition.name",
        "definition.version",
        "definition.steps[0].id",
        "definition.steps[0].action",
        "definition.steps[0].kind",
        "definition.steps[1].after.step_ids[0]",
    }


def test_empty_definition_is_refused() -> None:
    assert set(problems_of(saga_pb2.SagaDefinition())) == {
        "definition.name",
        "definition.version",
        "definition.input_type",
        "definition.steps",
    }


def test_unusable_descriptors_are_told_as_a_problem() -> None:
    with pytest.raises(DefinitionInvalidError, match=re.escape("descriptors: expected every file")):
        compiled(definition(), FileDescriptorSet(file=[file_with("a.proto", imports=("b.proto",))]))


def test_step_that_is_not_an_ancestor_has_no_output_yet() -> None:
    side_by_side = definition(step("a"), step("b", after=[], input="a", input_type=RESERVED))
    told = problems_of(side_by_side)["definition.steps[1].input"]
    assert told == '"a" is not there yet: it does not come before "b"; add "a" to its `after`; there is: input'


def test_output_of_any_ancestor_can_be_used() -> None:
    made = definition(step("a"), step("b"), step("c", input="a", input_type=RESERVED), output="a")
    assert compiled(made).plan.steps[2].id == "c"


# ── Bounds: a request of 4 MiB must not stop a node ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.steps.extend([saga_pb2.StepDefinition()] * 200_000),
        lambda d: d.steps[1].after.step_ids.extend(["reserve"] * 200_000),
        lambda d: d.defaults.execute_retry.non_retryable_codes.extend([99] * 200_000),
        lambda d: d.labels.update({f"{'k' * 64}{n}": "" for n in range(50_000)}),
    ],
)
def test_far_too_much_is_refused_soon_with_few_problems(change: Change) -> None:
    made = changed(change)
    began = time.perf_counter()
    problems = problems_of(made)
    assert time.perf_counter() - began < COMPILE_S_MAX
    assert 1 <= len(problems) <= PROBLEMS_MAX


def test_largest_definition_compiles_soon() -> None:
    ids = [f"s{index}" for index in range(STEPS_MAX)]
    made = definition(*(step(step_id, after=ids[:index]) for index, step_id in enumerate(ids)))
    began = time.perf_counter()
    plan = compiled(made).plan
    assert time.perf_counter() - began < COMPILE_S_MAX
    assert plan.predecessors[-1] == tuple(range(STEPS_MAX - 1))
    assert plan.backward_order == tuple(reversed(range(STEPS_MAX)))


# ── The plan ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unset_order_means_the_step_before_and_an_empty_one_means_none() -> None:
    plan = compiled(definition(step("a"), step("b"), step("c", after=[]), step("d", after=["c", "a"]))).plan
    assert after_of(plan) == {"a": set(), "b": {"a"}, "c": set(), "d": {"a", "c"}}
    assert plan.predecessors[3] == (0, 2)


def test_expressions_read_the_input_or_the_output_of_a_step() -> None:
    made = definition(step("a"), step("b", input="a", input_type=RESERVED), step("c", input="input"), output="b")
    plan = compiled(made).plan
    known = known_values(outputs={0: Payload(RESERVED, b"of a"), 1: Payload(RESERVED, b"of b")})
    assert [one.input(known) for one in plan.steps] == [known.input, Payload(RESERVED, b"of a"), known.input]
    assert all(one.copies_input for one in plan.steps)
    assert plan.output is not None
    assert plan.output(known) == Payload(RESERVED, b"of b")


def test_without_an_output_the_saga_returns_nothing() -> None:
    assert compiled(definition()).plan.output is None


def test_kind_that_is_not_said_is_compensatable() -> None:  # R9
    plan = compiled(definition(step("a"), step("b", kind=saga_pb2.STEP_KIND_READ_ONLY))).plan
    assert [one.kind for one in plan.steps] == [StepKind.COMPENSATABLE, StepKind.READ_ONLY]


def test_only_what_can_be_undone_is_compensated() -> None:  # R9, R12
    made = definition(
        step("reserve"),
        step("look", kind=saga_pb2.STEP_KIND_READ_ONLY),
        step("tell", kind=saga_pb2.STEP_KIND_BEST_EFFORT),
        step("log", kind=saga_pb2.STEP_KIND_BEST_EFFORT, without_compensation=True),
        step("charge", kind=saga_pb2.STEP_KIND_PIVOT),
        step("ship", kind=saga_pb2.STEP_KIND_RETRIABLE),
    )
    compensated = {one.id: one.is_compensated for one in compiled(made).plan.steps}
    assert compensated == {"reserve": True, "look": False, "tell": True, "log": False, "charge": False, "ship": False}


def test_step_knows_the_types_of_its_messages() -> None:
    (one,) = compiled(definition()).plan.steps
    assert (one.input_type, one.output_type) == (ORDER, RESERVED)


def test_coordinators_defaults_are_those_of_the_protocol() -> None:
    (plain,) = compiled(definition()).plan.steps
    expected = RetryPolicy(attempts_max=0, initial_backoff_us=seconds(0.2), multiplier=2.0, backoff_max_us=seconds(30))
    assert (plain.execute_retry, plain.compensate_retry) == (expected, expected)
    assert (plain.attempt_timeout_us, plain.execute_time_limit_us, plain.recovery_time_limit_us) == (
        seconds(10),
        seconds(300),
        seconds(86_400),
    )
    assert compiled(definition()).plan.time_limit_us is None


def test_step_overrides_the_defaults_of_its_definition_field_by_field() -> None:
    made = definition(step("a"), step("b"))
    made.defaults.attempt_timeout.FromSeconds(7)
    made.defaults.execute_time_limit.FromSeconds(70)
    made.defaults.compensate_time_limit.FromSeconds(700)
    made.defaults.execute_retry.max_attempts = 3
    made.defaults.compensate_retry.multiplier = 1.5
    made.steps[1].attempt_timeout.FromSeconds(1)
    made.steps[1].compensate_retry.max_attempts = 9
    made.time_limit.FromSeconds(100)
    plan = compiled(made).plan
    first, second = plan.steps
    assert plan.time_limit_us == seconds(100)
    assert (first.attempt_timeout_us, second.attempt_timeout_us) == (seconds(7), seconds(1))
    assert first.execute_time_limit_us == second.execute_time_limit_us == seconds(70)
    assert first.recovery_time_limit_us == second.recovery_time_limit_us == seconds(700)
    assert first.execute_retry == second.execute_retry == RetryPolicy(attempts_max=3)
    assert first.compensate_retry == RetryPolicy(multiplier=1.5)
    assert second.compensate_retry == RetryPolicy(attempts_max=9)  # a policy is taken as a whole


def test_whole_retry_policy_is_read() -> None:
    made = definition(step("a"))
    policy = made.steps[0].execute_retry
    policy.max_attempts, policy.multiplier = 5, 3.0
    policy.initial_backoff.FromMilliseconds(10)
    policy.max_backoff.FromSeconds(2)
    policy.non_retryable_codes.extend([3, 9])
    expected = RetryPolicy(
        attempts_max=5, initial_backoff_us=10_000, multiplier=3.0, backoff_max_us=2_000_000, non_retryable_codes=frozenset({3, 9})
    )
    assert compiled(made).plan.steps[0].execute_retry == expected


def test_hook_is_a_step_that_is_repeated_until_a_person_is_asked() -> None:  # R16
    made = definition(step("a"), on_success=hook(time_limit={"seconds": 60}), on_failure=hook(attempt_timeout={"seconds": 3}))
    made.defaults.attempt_timeout.FromSeconds(7)
    made.defaults.execute_retry.max_attempts = 3
    plan = compiled(made).plan
    assert plan.on_success is not None
    assert plan.on_failure is not None
    assert (plan.on_success.id, plan.on_failure.id) == ("on_success", "on_failure")
    assert (plan.on_success.attempt_timeout_us, plan.on_failure.attempt_timeout_us) == (seconds(7), seconds(3))
    assert (plan.on_success.recovery_time_limit_us, plan.on_failure.recovery_time_limit_us) == (seconds(60), seconds(86_400))
    assert plan.on_success.execute_retry == RetryPolicy(attempts_max=3)
    assert not plan.on_success.is_compensated
    assert plan.on_success.check_output(Payload(CHARGED, b"")) != ""


def test_without_hooks_there_are_none() -> None:
    plan = compiled(definition()).plan
    assert (plan.on_success, plan.on_failure) == (None, None)
