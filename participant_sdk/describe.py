"""What a participant tells about itself."""

from typing import Any

from google.protobuf.duration_pb2 import Duration

from participant_sdk.actions import Action
from participant_sdk.descriptors import closed_descriptors
from participant_sdk.effects import Effect
from participant_sdk.participant import Participant
from saga.v1 import participant_pb2

_EFFECTS = {
    Effect.DATABASE: participant_pb2.EFFECT_DATABASE,
    Effect.EXTERNAL: participant_pb2.EFFECT_EXTERNAL,
}


def describe(participant: Participant) -> participant_pb2.ParticipantDescription:
    """Its actions with their types, the descriptors of those, and what its barrier promises."""
    actions = participant.actions.values()
    signatures = [action.signature for action in actions]
    types = [payload for signature in signatures for payload in (signature.request, signature.response)]
    description = participant_pb2.ParticipantDescription(
        name=participant.participant_name,
        actions=[_describe_action(action) for action in actions],
        descriptors=closed_descriptors(payload.descriptor for payload in types),
        guarantee=(
            participant_pb2.GUARANTEE_EFFECT_ONCE if participant.barrier.is_effect_once else participant_pb2.GUARANTEE_AT_LEAST_ONCE
        ),
        exchange=True,
    )
    if participant.barrier.retention is not None:
        retention = Duration()
        retention.FromTimedelta(participant.barrier.retention)
        description.retention.CopyFrom(retention)
    return description


def _describe_action(action: Action[Any, Any]) -> participant_pb2.ActionDescription:
    return participant_pb2.ActionDescription(
        name=action.name,
        input_type=action.signature.request.name,
        output_type=action.signature.response.name,
        compensatable=action.is_compensatable,
        effect=_EFFECTS[action.effect],
        accepts=action.signature.accepts,
    )
