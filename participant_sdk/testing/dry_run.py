"""A definition run with nobody but stubs: which calls it makes, in which order, and how long that takes."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from participant_sdk.payloads import Payload
from participant_sdk.testing.errors import KitError
from participant_sdk.testing.faults import Refusal
from participant_sdk.testing.plans import Plan, definition_of
from participant_sdk.testing.saga_run import SagaRun
from participant_sdk.testing.scenario import given
from participant_sdk.testing.stubs import stubs_of

LATENCY_DEFAULT: Final = timedelta(milliseconds=10)

__all__ = ["LATENCY_DEFAULT", "dry_run"]


def dry_run(
    plan: Plan,
    message: Payload,
    *,
    latencies: Mapping[str, timedelta] | None = None,
    latency: timedelta = LATENCY_DEFAULT,
    refused: Iterable[str] = (),
) -> SagaRun:
    """Runs a saga with stubs that answer empty messages, or what their types make of that.

    `latencies`: how long a step takes, or every step of an action, by its name; `latency`: all others, and what undoes them. `refused`:
    steps that their participants refuse, to see the way back. Raises KitError if one of these names is unknown.
    """
    definition = definition_of(plan)
    action_of = {step.id: step.action for step in definition.message.steps}
    said = dict(latencies or {})
    known = {*action_of, *(call.action for call in definition.calls())}
    if unknown := sorted({*said, *refused} - known):
        raise KitError(f"{definition.title} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    by_action = {action_of.get(name, name): taken for name, taken in said.items()}
    stubs = [each.takes(by_action.get(each.action, latency)).undo_takes(latency) for each in stubs_of(definition)]
    return given(definition, *stubs, faults=[Refusal(step_id) for step_id in refused]).when(message)
