"""Where a definition and what participants say of themselves do not fit together."""

from collections.abc import Iterator, Mapping

from coordinator.codec.definition_rules import Problem
from saga.v1 import participant_pb2, saga_pb2

Descriptions = Mapping[str, participant_pb2.ParticipantDescription | None]
"""By name; None: nothing is known of it now."""


def find_mismatches(definition: saga_pb2.SagaDefinition, descriptions: Descriptions) -> Iterator[Problem]:
    """Every step whose action is not there, takes or returns something else, or cannot be compensated though it has to be (R9)."""
    for index, step in enumerate(definition.steps):
        participant, _, action_name = step.action.partition(".")
        description = descriptions.get(participant)
        if description is None:
            continue
        path = f"definition.steps[{index}]"
        action = next((action for action in description.actions if action.name == action_name), None)
        if action is None:
            known = ", ".join(sorted(action.name for action in description.actions))
            yield Problem(f"{path}.action", f"participant {participant!r} has no action {action_name!r}; it has: {known}")
            continue
        if action.input_type != step.input_type:
            yield Problem(f"{path}.input_type", f"{step.action} takes a {action.input_type}, found {step.input_type}")
        if action.output_type != step.output_type:
            yield Problem(f"{path}.output_type", f"{step.action} returns a {action.output_type}, found {step.output_type}")
        if step.kind in (saga_pb2.STEP_KIND_UNSPECIFIED, saga_pb2.STEP_KIND_COMPENSATABLE) and not action.compensatable:
            yield Problem(f"{path}.kind", f"{step.action} has no compensation; give it one, or make the step READ_ONLY")
