"""Where a definition and what participants say of themselves do not fit together."""

from collections.abc import Iterator, Mapping

from participant_sdk.definitions.kinds import kind_of
from participant_sdk.definitions.problems import Problem
from saga.v1 import participant_pb2, saga_pb2

Descriptions = Mapping[str, participant_pb2.ParticipantDescription | None]
"""By name; None: nothing is known of it now."""
_Call = saga_pb2.StepDefinition | saga_pb2.HookDefinition


def find_mismatches(definition: saga_pb2.SagaDefinition, descriptions: Descriptions) -> Iterator[Problem]:
    """Every step and hook whose action is not there, takes or returns something else, or cannot be compensated though it has to be (R9)."""
    for index, step in enumerate(definition.steps):
        path = f"definition.steps[{index}]"
        yield from _find_in_call(step, path, descriptions)
        yield from _find_in_kind(step, path, descriptions)
    for name in ("on_success", "on_failure"):
        if definition.HasField(name):
            yield from _find_in_call(getattr(definition, name), f"definition.{name}", descriptions)


def find_type_mismatch(action: str, input_type: str, output_type: str, description: participant_pb2.ParticipantDescription) -> str:
    """What a participant takes or returns otherwise than a definition says, for people; empty: nothing.

    An action that is not described at all is none: the call itself will be answered with that.
    """
    described = _find_action(action, description)
    if described is None:
        return ""
    wrong = []
    if described.input_type != input_type:
        wrong.append(f"{action} takes a {described.input_type}, the definition says {input_type}")
    if described.output_type != output_type:
        wrong.append(f"{action} returns a {described.output_type}, the definition says {output_type}")
    return "; ".join(wrong)


def _find_in_call(call: _Call, path: str, descriptions: Descriptions) -> Iterator[Problem]:
    participant, _, action_name = call.action.partition(".")
    description = descriptions.get(participant)
    if description is None:
        return
    action = _find_action(call.action, description)
    if action is None:
        known = ", ".join(sorted(action.name for action in description.actions))
        yield Problem(f"{path}.action", f"participant {participant!r} has no action {action_name!r}; it has: {known}")
        return
    if action.input_type != call.input_type:
        yield Problem(f"{path}.input_type", f"{call.action} takes a {action.input_type}, found {call.input_type}")
    if action.output_type != call.output_type:
        yield Problem(f"{path}.output_type", f"{call.action} returns a {action.output_type}, found {call.output_type}")


def _find_in_kind(step: saga_pb2.StepDefinition, path: str, descriptions: Descriptions) -> Iterator[Problem]:  # R9
    description = descriptions.get(step.action.partition(".")[0])
    action = _find_action(step.action, description) if description is not None else None
    if action is None or action.compensatable:
        return
    if kind_of(step) == saga_pb2.STEP_KIND_COMPENSATABLE:
        yield Problem(
            f"{path}.kind",
            f"{step.action} has no compensation; give it one, or make the step READ_ONLY if it changes nothing, "
            "PIVOT or RETRIABLE if it is never undone, or BEST_EFFORT with without_compensation",
        )
    elif kind_of(step) == saga_pb2.STEP_KIND_BEST_EFFORT and not step.without_compensation:
        yield Problem(
            f"{path}.kind", f"{step.action} has no compensation; give it one, or say without_compensation if what it did may stay"
        )


def _find_action(action: str, description: participant_pb2.ParticipantDescription) -> participant_pb2.ActionDescription | None:
    name = action.partition(".")[2]
    return next((described for described in description.actions if described.name == name), None)
