"""Where a saga stands in its trace: every id is derived, none is drawn.

A span id is a hash of what the span stands for, so that a trace goes on after a crash or a week, by whichever process, and a span that is
written twice carries the same id twice instead of counting as two. Format of the header: W3C Trace Context, https://www.w3.org/TR/trace-context/.
"""

import re
from hashlib import blake2b
from typing import Final, NamedTuple

from coordinator.core.values import AttemptKey, SagaId, TraceContext

TRACESTATE_CHARS_MAX: Final = 512
"""Longer ones are left out: what W3C asks everybody to carry at least."""

_SAMPLED_FLAG: Final = 0x01
_LOW_64_BITS: Final = (1 << 64) - 1
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_TRACESTATE: Final = re.compile(rf"[\x20-\x7e]{{0,{TRACESTATE_CHARS_MAX}}}", re.ASCII)
_SPAN_ID: Final = slice(36, 52)
_FLAGS: Final = slice(53, None)


class TraceParent(NamedTuple):
    """A span somewhere, as a traceparent header names it."""

    trace_id: int
    """128 bits, never 0."""
    span_id: int
    """64 bits, never 0."""
    sampled: bool
    """Whether whoever made that span records it."""


def start_trace(saga_id: SagaId, parent_traceparent: str, tracestate: str, *, sample: bool) -> TraceContext:
    """Where a new saga stands: in the trace of its caller, or in one of its own if the caller brought none that is well formed.

    `sample` decides only about a trace of its own; in the caller's the caller has decided. Both texts come from outside: a malformed
    traceparent makes the tracestate worthless too (W3C §3.3), and nothing of either that could not travel in metadata is kept.
    """
    parent = parse_traceparent(parent_traceparent)
    if parent is None:
        return TraceContext(traceparent=format_traceparent(trace_id_of(saga_id), root_span_id(saga_id), sampled=sample))
    return TraceContext(
        traceparent=format_traceparent(parent.trace_id, root_span_id(saga_id), sampled=parent.sampled),
        parent_traceparent=format_traceparent(*parent[:2], sampled=parent.sampled),
        tracestate=tracestate if _TRACESTATE.fullmatch(tracestate) else "",
    )


def attempt_traceparent(context: TraceContext, saga_id: SagaId, attempt: AttemptKey) -> str:
    """What travels with the call of an attempt: the participant's span stands below the attempt's. Empty if the saga has no trace.

    Where nothing is recorded nobody sees whose child a span would be: then the root's own text goes, which needs no hash.
    """
    root = context.traceparent
    if not root or not is_traced(context):
        return root
    # Cut and not parsed: this runs once per call, and only `start_trace` ever made that text.
    return f"{root[: _SPAN_ID.start]}{attempt_span_id(saga_id, attempt):016x}{root[_SPAN_ID.stop :]}"


def is_traced(context: TraceContext) -> bool:
    """Whether spans of this saga are recorded. False for a saga without any trace."""
    return context.traceparent[_FLAGS] == "01"


def trace_id_of(saga_id: SagaId) -> int:
    """The trace of a saga whose caller brought none.

    Not the saga id itself: clients make those, and samplers along the way take the low bits of a trace id for random ones.
    """
    return _derive("", saga_id, size=16, person=b"saga trace")


def root_span_id(saga_id: SagaId) -> int:
    """The span that stands for the saga as a whole."""
    return _derive("", saga_id, size=8, person=b"saga root")


def attempt_span_id(saga_id: SagaId, attempt: AttemptKey) -> int:
    """The span that stands for one call. Two attempts never share one."""
    step_id, direction, round_, number = attempt
    return _derive(f"/{step_id}/{direction:d}/{round_}/{number}", saga_id, size=8, person=b"saga attempt")


def continuation_span_id(saga_id: SagaId, sequence: int) -> int:
    """The span that stands for what a saga does after it was FAILED, named by the fact that led out of there."""
    return _derive(f"/{sequence}", saga_id, size=8, person=b"saga continued")


def completion_span_id(saga_id: SagaId, attempt: AttemptKey) -> int:
    """The span that stands for what a participant does after it accepted a step, named by the attempt that it accepted."""
    step_id, direction, round_, number = attempt
    return _derive(f"/{step_id}/{direction:d}/{round_}/{number}", saga_id, size=8, person=b"saga completion")


def is_sampled(trace_id: int, ratio: float) -> bool:
    """Whether a trace is in that share of all traces, 0.0 to 1.0.

    The same answer as OpenTelemetry's TraceIdRatioBased, so that services which decide for themselves agree on which traces to keep.
    """
    return trace_id & _LOW_64_BITS < round(ratio * (_LOW_64_BITS + 1))


def format_traceparent(trace_id: int, span_id: int, *, sampled: bool) -> str:
    """The header, version 00. Other flags than `sampled` are zero, as W3C asks of whoever does not know them."""
    return f"00-{trace_id:032x}-{span_id:016x}-{_SAMPLED_FLAG if sampled else 0:02x}"


def parse_traceparent(text: str) -> TraceParent | None:
    """The span that a header names; None if it is not well formed, which W3C wants treated as if it were not there.

    Version 00 must be exact. A later version may go on after its flags, where we cannot know more.
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    parent = TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED_FLAG))
    return parent if parent.trace_id and parent.span_id else None


def _derive(what: str, saga_id: SagaId, *, size: int, person: bytes) -> int:
    digest = blake2b(f"{saga_id}{what}".encode(), digest_size=size, person=person).digest()
    return int.from_bytes(digest, "big") or 1  # 0 means "no id" everywhere
