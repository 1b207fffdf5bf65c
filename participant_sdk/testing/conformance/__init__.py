"""Whether a participant, in whatever language, keeps its side of the wire contract: called as a coordinator would, and worse."""

from participant_sdk.testing.conformance.report import (
    ConformanceError,
    ConformanceReport,
    Finding,
    ParticipantBrokenError,
    ParticipantUnreachableError,
    Verdict,
)
from participant_sdk.testing.conformance.rules import RULES
from participant_sdk.testing.conformance.trial import Rule
from participant_sdk.testing.conformance.verifying import VerifyOptions, describe_participant, find_action, verify_participant
from participant_sdk.testing.conformance.ways import Way

__all__ = [
    "RULES",
    "ConformanceError",
    "ConformanceReport",
    "Finding",
    "ParticipantBrokenError",
    "ParticipantUnreachableError",
    "Rule",
    "Verdict",
    "VerifyOptions",
    "Way",
    "describe_participant",
    "find_action",
    "verify_participant",
]
