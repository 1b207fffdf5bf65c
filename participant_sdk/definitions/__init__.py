"""What makes a saga definition right: the same judgement for whoever writes one down and for the coordinator that registers it.

Its parts are loaded when they are first asked for: most of what uses the SDK judges no definition.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from participant_sdk.definitions.expressions import can_check_expressions
    from participant_sdk.definitions.message_types import MessageTypes, UnusableDescriptorsError
    from participant_sdk.definitions.problems import PROBLEMS_MAX, Problem
    from participant_sdk.definitions.rules import find_problems

__all__ = ["PROBLEMS_MAX", "MessageTypes", "Problem", "UnusableDescriptorsError", "can_check_expressions", "find_problems"]

_HOMES = {
    "PROBLEMS_MAX": "problems",
    "MessageTypes": "message_types",
    "Problem": "problems",
    "UnusableDescriptorsError": "message_types",
    "can_check_expressions": "expressions",
    "find_problems": "rules",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
