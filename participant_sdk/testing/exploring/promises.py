"""What must be true of a saga however it went, judged from its public history and from what its participants did.

Nothing of the code that is judged decides here. Effects are known of participants with a barrier and an effect inside their database; the
others promise only what a user's own invariant can look at.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from participant_sdk.testing.ledger import Call, CallOutcome
from participant_sdk.testing.plans import Definition
from participant_sdk.testing.saga_run import SagaRun
from saga.v1 import saga_pb2

_ENDS: Final = ("saga_completed", "saga_compensated", "saga_terminated")
_UNDONE_KINDS: Final = (saga_pb2.STEP_KIND_UNSPECIFIED, saga_pb2.STEP_KIND_COMPENSATABLE)


def broken_promises(run: SagaRun, definition: Definition, *, may_need_person: bool) -> list[str]:
    """Every promise that was broken, in plain words; none: all were kept."""
    return [*_wrong_history(run), *_wrong_end(run, may_need_person=may_need_person), *_wrong_effects(run, definition)]


def _wrong_history(run: SagaRun) -> Iterator[str]:
    sequences = [event.sequence for event in run.events]
    if sequences != list(range(1, len(sequences) + 1)):
        yield f"no gaps: its events are numbered {sequences}"
    ends = [kind for event in run.events if (kind := event.WhichOneof("fact")) in _ENDS]
    if len(ends) > 1:
        yield f"one outcome: it ended {len(ends)} times ({', '.join(map(str, ends))})"


def _wrong_end(run: SagaRun, *, may_need_person: bool) -> Iterator[str]:
    has_ended = run.saga.status in (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED)
    if run.open_incidents and not may_need_person:
        about = ", ".join(f"{each.step_id or 'the saga'} ({each.error.message})" for each in run.open_incidents)
        yield f"it ends by itself: a person is needed for {about}"
    elif not has_ended and not run.open_incidents:
        yield f"it ends: it is {run.status} and nothing moves it"


def _wrong_effects(run: SagaRun, definition: Definition) -> Iterator[str]:
    by_key: dict[str, list[Call]] = defaultdict(list)
    for call in run.calls:
        by_key[call.execute_key].append(call)
    for calls in by_key.values():
        if _is_known(calls):
            yield from _wrong_key([call for call in calls if call.took_effect])
    if run.open_incidents:
        return  # how it stands is for a person to settle
    for step in definition.message.steps:
        calls = [call for call in run.calls if call.step_id == step.id]
        if calls and _is_known(calls):
            yield from _wrong_standing(run, step, calls)


def _is_known(calls: Sequence[Call]) -> bool:
    """Whether what took effect is known: guarded, and no commit that may or may not have happened when its caller was gone."""
    return any(call.is_guarded for call in calls) and not any(call.outcome is CallOutcome.CUT and call.handler_ran for call in calls)


def _wrong_key(effective: Sequence[Call]) -> Iterator[str]:
    """What one key did, in that order."""
    deeds = [call.is_undo for call in effective]
    if not deeds:
        return
    name = effective[0].step_id
    if deeds.count(False) > 1:
        yield f"effect at most once: {name} took effect {deeds.count(False)} times with one key"
    if deeds.count(True) > 1:
        yield f"undone at most once: {name} was undone {deeds.count(True)} times"
    if deeds[0]:
        yield f"undone only if done: {name} was undone, and had not been done"
    if True in deeds and False in deeds[deeds.index(True) :]:
        yield f"nothing after its undo: {name} took effect after it was undone"


def _wrong_standing(run: SagaRun, step: saga_pb2.StepDefinition, calls: Sequence[Call]) -> Iterator[str]:
    stands = sum(-1 if call.is_undo else 1 for call in calls if call.took_effect)
    said = next((each.status for each in run.saga.steps if each.id == step.id), saga_pb2.STEP_STATUS_UNSPECIFIED)
    if run.saga.status == saga_pb2.SAGA_STATUS_COMPLETED and said == saga_pb2.STEP_STATUS_SUCCEEDED and stands != 1:
        yield f"all or nothing: the saga is COMPLETED, {step.id} has SUCCEEDED, and its effect stands {stands} times"
    if run.saga.status == saga_pb2.SAGA_STATUS_COMPENSATED and step.kind in _UNDONE_KINDS and stands != 0:
        yield f"all or nothing: the saga is COMPENSATED, and the effect of {step.id} stands {stands} times"
