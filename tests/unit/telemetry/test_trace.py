"""Ids of traces and spans: derived, stable, never zero, and W3C headers read strictly."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from coordinator.core.trace import (
    TRACESTATE_CHARS_MAX,
    TraceParent,
    attempt_span_id,
    attempt_traceparent,
    completion_span_id,
    continuation_span_id,
    format_traceparent,
    is_sampled,
    is_traced,
    parse_traceparent,
    root_span_id,
    start_trace,
    trace_id_of,
)
from coordinator.core.values import SagaId, TraceContext
from tests.builders import COMPENSATE, EXECUTE, SAGA, attempt
from tests.unit.telemetry.observed import CALLER

OTHER_SAGA = SagaId("01900000-0000-7000-8000-000000000002")
trace_ids = st.integers(1, 2**128 - 1)
span_ids = st.integers(1, 2**64 - 1)


def test_same_saga_has_the_same_ids_in_every_release() -> None:
    # Golden: a saga that sleeps across an upgrade must find its own spans again. Never change these numbers.
    assert f"{trace_id_of(SAGA):032x}" == "f0ac544d903343820405ecd73eabc8d4"
    assert f"{root_span_id(SAGA):016x}" == "67366c6c3526c5a6"
    assert f"{attempt_span_id(SAGA, attempt('charge', 1)):016x}" == "3aa81b113d0c0c7e"
    assert f"{attempt_span_id(SAGA, attempt('charge', 1, COMPENSATE)):016x}" == "09cc0bef0b896cb0"
    assert f"{completion_span_id(SAGA, attempt('charge', 1)):016x}" == "33630163d7e4a4a0"
    assert f"{continuation_span_id(SAGA, 11):016x}" == "c927f82265f94b73"


def test_no_two_spans_of_a_saga_share_an_id() -> None:
    numbers = range(1, 12)
    ids = [
        root_span_id(SAGA),
        *(attempt_span_id(SAGA, attempt("charge", number)) for number in numbers),
        *(completion_span_id(saga_id, attempt("charge", number)) for number in numbers for saga_id in (SAGA, OTHER_SAGA)),
        *(continuation_span_id(saga_id, number) for number in numbers for saga_id in (SAGA, OTHER_SAGA)),
    ]
    assert len(set(ids)) == len(ids)


def test_everything_that_names_an_attempt_is_in_its_id() -> None:
    ids = {
        root_span_id(SAGA),
        root_span_id(OTHER_SAGA),
        *(
            attempt_span_id(saga_id, attempt(step_id, number, direction, round_))
            for saga_id in (SAGA, OTHER_SAGA)
            for step_id in ("charge", "charge1")
            for direction in (EXECUTE, COMPENSATE)
            for round_ in (1, 11)
            for number in (1, 11)
        ),
    }
    assert len(ids) == 2 + 2 * 2 * 2 * 2 * 2


@given(st.uuids())
def test_any_saga_has_ids_that_w3c_accepts(saga_id: object) -> None:
    named = SagaId(str(saga_id))
    assert 0 < trace_id_of(named) < 2**128
    assert 0 < root_span_id(named) < 2**64
    assert 0 < attempt_span_id(named, attempt("charge", 1)) < 2**64


@given(trace_ids, span_ids, st.booleans())
def test_formatted_traceparent_is_read_back(trace_id: int, span_id: int, sampled: bool) -> None:
    assert parse_traceparent(format_traceparent(trace_id, span_id, sampled=sampled)) == TraceParent(trace_id, span_id, sampled)


@given(st.text(alphabet="0123456789abcdefABCDEF-\n x", max_size=80) | st.text(max_size=60))
@example(CALLER + "\n")
def test_text_that_is_no_traceparent_is_no_parent(text: str) -> None:
    parent = parse_traceparent(text)
    if parent is not None:  # what is read must be what was said
        assert format_traceparent(*parent[:2], sampled=parent.sampled)[3:52] == text[3:52]
        assert text[:2] != "ff"


@given(st.integers(0, 54), st.sampled_from("0123456789abcdef-gAF \n"))
def test_traceparent_with_one_character_changed_is_read_as_it_stands_or_not_at_all(index: int, changed: str) -> None:
    text = CALLER[:index] + changed + CALLER[index + 1 :]
    assume(text != CALLER)
    parent = parse_traceparent(text)
    if parent is not None:
        assert f"{parent.trace_id:032x}-{parent.span_id:016x}" == text[3:52]


@pytest.mark.parametrize(
    "text",
    [
        "",
        CALLER[:-1],
        CALLER + "-",
        CALLER + "0",
        CALLER + "\n",
        " " + CALLER,
        CALLER.upper(),
        "ff" + CALLER[2:],
        "00-" + "0" * 32 + CALLER[35:],
        CALLER[:36] + "0" * 16 + CALLER[52:],
        CALLER.replace("-", "_"),
        CALLER.replace("0af", "\N{ARABIC-INDIC DIGIT ZERO}af"),  # a digit, but not of ASCII
    ],
)
def test_malformed_traceparent_is_no_parent(text: str) -> None:
    assert parse_traceparent(text) is None


def test_traceparent_of_a_later_version_is_read_as_far_as_we_know_it() -> None:
    expected = TraceParent(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, sampled=True)
    assert parse_traceparent("01" + CALLER[2:]) == expected
    assert parse_traceparent("cc" + CALLER[2:] + "-what-comes-then") == expected
    assert parse_traceparent("cc" + CALLER[2:] + "what-comes-then") is None


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_only_the_sampled_flag_is_read_and_passed_on(flags: str, sampled: bool) -> None:
    context = start_trace(SAGA, CALLER[:53] + flags, "", sample=not sampled)
    assert is_traced(context) is sampled
    assert context.traceparent.endswith("-01" if sampled else "-00")


def test_saga_with_a_caller_stands_in_the_callers_trace() -> None:
    assert start_trace(SAGA, CALLER, "vendor=1", sample=False) == TraceContext(
        traceparent=f"00-0af7651916cd43dd8448eb211c80319c-{root_span_id(SAGA):016x}-01", parent_traceparent=CALLER, tracestate="vendor=1"
    )


@pytest.mark.parametrize("parent", ["", "no traceparent", CALLER + "0"])
def test_saga_without_a_caller_has_a_trace_of_its_own(parent: str) -> None:
    expected = TraceContext(traceparent=f"00-{trace_id_of(SAGA):032x}-{root_span_id(SAGA):016x}-01")
    assert start_trace(SAGA, parent, "vendor=1", sample=True) == expected


def test_sampling_decides_about_a_trace_of_its_own_only() -> None:
    assert not is_traced(start_trace(SAGA, "", "", sample=False))
    assert is_traced(start_trace(SAGA, CALLER, "", sample=False))
    assert not is_traced(start_trace(SAGA, CALLER[:-1] + "0", "", sample=True))
    assert not is_traced(TraceContext(traceparent=""))


@pytest.mark.parametrize("tracestate", ["a=1\r\nauthorization: x", "a=\x00", "a=é", "a=" + "x" * TRACESTATE_CHARS_MAX])
def test_tracestate_that_cannot_travel_is_left_out(tracestate: str) -> None:
    assert start_trace(SAGA, CALLER, tracestate, sample=True).tracestate == ""


def test_call_carries_the_span_of_its_attempt() -> None:
    context = start_trace(SAGA, CALLER, "", sample=True)
    key = attempt("charge", 2, COMPENSATE)
    carried = parse_traceparent(attempt_traceparent(context, SAGA, key))
    assert carried == TraceParent(0x0AF7651916CD43DD8448EB211C80319C, attempt_span_id(SAGA, key), sampled=True)


def test_call_of_an_unsampled_saga_says_so() -> None:
    context = start_trace(SAGA, "", "", sample=False)
    assert attempt_traceparent(context, SAGA, attempt("charge", 1)).endswith("-00")


def test_call_of_a_saga_without_trace_carries_nothing() -> None:
    assert attempt_traceparent(TraceContext(traceparent=""), SAGA, attempt("charge", 1)) == ""


@given(trace_ids, st.floats(0, 1))
@example(2**64 - 1, 1.0)
@example(2**64, 0.0)
def test_ratio_keeps_the_traces_that_opentelemetry_keeps(trace_id: int, ratio: float) -> None:
    theirs = TraceIdRatioBased(ratio).should_sample(None, trace_id, "saga place-order")
    assert is_sampled(trace_id, ratio) is (theirs.decision is Decision.RECORD_AND_SAMPLE)


def test_ratio_keeps_about_its_share_of_sagas() -> None:
    kept = sum(is_sampled(trace_id_of(SagaId(f"01900000-0000-7000-8000-{number:012x}")), 0.25) for number in range(4_000))
    assert 900 <= kept <= 1_100
