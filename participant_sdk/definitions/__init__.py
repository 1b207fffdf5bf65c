"""What makes a saga definition right: the same judgement for whoever writes one down and for the coordinator that registers it."""

from participant_sdk.definitions.expressions import can_check_expressions
from participant_sdk.definitions.message_types import MessageTypes, UnusableDescriptorsError
from participant_sdk.definitions.problems import PROBLEMS_MAX, Problem
from participant_sdk.definitions.rules import find_problems

__all__ = ["PROBLEMS_MAX", "MessageTypes", "Problem", "UnusableDescriptorsError", "can_check_expressions", "find_problems"]
