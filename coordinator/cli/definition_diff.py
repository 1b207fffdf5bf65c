"""What differs between two saga definitions, in words, and what that means for callers, participants and sagas in flight.

What says the same is the same: an `after` that is left out and one that names the step before, an empty `input` and "input", a kind that
is not given and COMPENSATABLE, a backoff that is not given and the default, an expression with other line breaks. The order in which
steps are listed says nothing by itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from coordinator.cli.definition_shape import short_enum_names
from coordinator.cli.message_diff import MessageChange, compare_messages
from participant_sdk.definitions.graph import predecessors_of
from participant_sdk.policies import RetryPolicy
from saga.v1 import saga_pb2


class Verb(StrEnum):
    """What happened to something on the way from the first definition to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that differs."""

    verb: Verb
    place: str
    """Example: "step charge, kind", "step label", "output", "message shop.v1.PlaceOrder, field sku"."""
    before: str = ""
    """As it was; empty if it was not there."""
    after: str = ""
    """As it is; empty if it is there no more."""
    hint: str = ""
    """What it means; empty if there is nothing to heed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two definitions."""

    definition: saga_pb2.SagaDefinition
    descriptors: FileDescriptorSet

    @property
    def title(self) -> str:
        """Example: "place-order v3"."""
        return f"{self.definition.name} v{self.definition.version}"


NOT_GIVEN: Final = "(not given)"
USUAL_POLICY: Final = "(every field as usual)"
_STEP_IDS: Final = "after.step_ids"
_LAYOUT: Final = re.compile(r"""("{3}.*?"{3}|'{3}.*?'{3}|"[^"]*"|'[^']*'|[^\s"'/]|/(?!/))|(?://[^\n]*)|((?<=\w)\s+(?=\w))|\s+""", re.DOTALL)
"""Literals and single characters; comments; blanks between words; other blanks."""
_ALL_KINDS: Final = short_enum_names(saga_pb2.StepKind.DESCRIPTOR)
_KIND_HINTS: Final = {
    "PIVOT": "the point of no return is here now: once it succeeded, nothing before it is undone",
    "RETRIABLE": "it is repeated until it succeeds, and a person is asked if it is rejected",
    "COMPENSATABLE": "its action must have a compensation",
    "READ_ONLY": "it is not undone when the saga turns back",
    "BEST_EFFORT": "the saga goes on without it if it does not succeed; its output is then the default message",
}


def compare_definitions(first: Side, second: Side) -> list[Change]:
    """Everything that differs but the version: head, steps, hooks, messages. Empty: nothing."""
    return [*_compare_heads(first, second), *_compare_steps(first, second), *_compare_hooks(first, second), *_compare_types(first, second)]


# ── Head ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compare_heads(first: Side, second: Side) -> Iterator[Change]:
    hints = {
        "name": "these are two sagas, not two versions of one",
        "input_type": "callers must send the new message, and those that name no version must do so from the moment it is registered",
        "output": "callers that read what the saga returns get something else",
        "output_type": "callers that read what the saga returns must know the new message",
    }
    yield from _compare_fields(_head_of(first.definition), _head_of(second.definition), "", hints)


def _head_of(definition: saga_pb2.SagaDefinition) -> dict[str, str]:
    head = saga_pb2.SagaDefinition()
    head.CopyFrom(definition)
    for field in ("version", "steps", "labels", "on_success", "on_failure"):
        head.ClearField(field)
    labels = {f"label {key}": value for key, value in sorted(definition.labels.items())}
    return {**flatten(head), **labels}


# ── Steps and hooks ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compare_steps(first: Side, second: Side) -> Iterator[Change]:
    before, after = _steps_of(first.definition), _steps_of(second.definition)
    still_called = _actions_of(second.definition)
    for step_id in [*before, *(step_id for step_id in after if step_id not in before)]:
        place, old, new = f"step {step_id}", before.get(step_id), after.get(step_id)
        if old is None and new is not None:
            yield Change(verb=Verb.ADDED, place=place, after=_summary(new), hint=_added_hint(new))
        elif new is None and old is not None:
            hint = _gone_hint(old["action"], still_called, first)
            yield Change(verb=Verb.REMOVED, place=place, before=_summary(old), hint=hint)
        elif old is not None and new is not None:
            yield from _compare_fields(old, new, f"{place}, ", _step_hints(old, new, still_called, first))


def _compare_hooks(first: Side, second: Side) -> Iterator[Change]:
    still_called = _actions_of(second.definition)
    for name in ("on_success", "on_failure"):
        old, new = _hook_of(first.definition, name), _hook_of(second.definition, name)
        if not old and new:
            yield Change(verb=Verb.ADDED, place=name, after=_summary(new))
        elif old and not new:
            yield Change(verb=Verb.REMOVED, place=name, before=_summary(old), hint=_gone_hint(old["action"], still_called, first))
        else:
            yield from _compare_fields(old, new, f"{name}, ", _step_hints(old, new, still_called, first))


def _steps_of(definition: saga_pb2.SagaDefinition) -> dict[str, dict[str, str]]:
    place_of = {step.id: index for index, step in enumerate(definition.steps)}
    steps = {}
    for step, before in zip(definition.steps, predecessors_of(definition), strict=True):
        fields = {field: text for field, text in flatten(step).items() if field not in {"id", _STEP_IDS}}
        fields["input"] = step.input or "input"
        fields["kind"] = _kind_name(step.kind)
        # In the order of the list, whatever order they were named in.
        fields["after"] = ", ".join(sorted(set(before), key=lambda step_id: place_of.get(step_id, 0))) or "(the start)"
        steps[step.id] = fields
    return steps


def _hook_of(definition: saga_pb2.SagaDefinition, name: str) -> dict[str, str]:
    if not definition.HasField(name):  # type: ignore[arg-type]  # one of its two hooks
        return {}
    hook: saga_pb2.HookDefinition = getattr(definition, name)
    return {**flatten(hook), "input": hook.input or "input"}


def _kind_name(kind: int) -> str:
    names = {number: name for name, number in _ALL_KINDS.items()}
    return names.get(kind or saga_pb2.STEP_KIND_COMPENSATABLE, str(kind))


def _actions_of(definition: saga_pb2.SagaDefinition) -> frozenset[str]:
    hooks = (definition.on_success.action, definition.on_failure.action)
    return frozenset({*(step.action for step in definition.steps), *hooks})


def _summary(fields: Mapping[str, str]) -> str:
    kind = f"{fields['kind']} " if "kind" in fields else ""
    after = f", after {fields['after']}" if "after" in fields else ""
    return f"{kind}{fields.get('action', '')}{after}"


def _added_hint(fields: Mapping[str, str]) -> str:
    return f"its participant must serve {fields.get('action', 'its action')} before this version is started"


def _gone_hint(action: str, still_called: frozenset[str], first: Side) -> str:
    if action in still_called:
        return ""
    return f"keep the participant serving {action}{_also_compensating(action, first)} until the last saga of {first.title} has ended"


def _also_compensating(action: str, side: Side) -> str:
    undone = (saga_pb2.STEP_KIND_UNSPECIFIED, saga_pb2.STEP_KIND_COMPENSATABLE, saga_pb2.STEP_KIND_BEST_EFFORT)
    calls = (step for step in side.definition.steps if step.action == action)
    return " and its compensation" if any(step.kind in undone and not step.without_compensation for step in calls) else ""


def _step_hints(old: Mapping[str, str], new: Mapping[str, str], still_called: frozenset[str], first: Side) -> dict[str, str]:
    hints = {"when": "a step that is left out has the default message as its output, and `ran` is false"}
    if old.get("action") != new.get("action"):
        hints["action"] = _gone_hint(old.get("action", ""), still_called, first)
    else:
        both = f"one participant cannot serve {new.get('action')} with both: give the new one another name while sagas of {first.title} run"
        hints |= {"input_type": both, "output_type": both}
    if new.get("kind") in _KIND_HINTS:
        hints["kind"] = _KIND_HINTS[new["kind"]]
    return hints


def _compare_fields(old: Mapping[str, str], new: Mapping[str, str], prefix: str, hints: Mapping[str, str]) -> Iterator[Change]:
    for field in dict.fromkeys([*old, *new]):
        if old.get(field) == new.get(field) or (
            _is_expression(field) and _without_layout(old.get(field)) == _without_layout(new.get(field))
        ):
            continue
        before, after = old.get(field, NOT_GIVEN), new.get(field, NOT_GIVEN)
        yield Change(verb=Verb.CHANGED, place=prefix + field, before=before, after=after, hint=hints.get(field, ""))


def _is_expression(field: str) -> bool:
    return field in {"input", "when", "output"}


def _without_layout(expression: str | None) -> str | None:
    """An expression without comments, and without blanks that part nothing; what stands in quotes stays."""
    if expression is None or "\\" in expression:
        return expression  # where a literal with escapes ends is not for us to say
    return "".join(literal or (" " if blank else "") for literal, blank in _LAYOUT.findall(expression))


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compare_types(first: Side, second: Side) -> Iterator[Change]:
    for change in compare_messages(_types_of(first), _types_of(second), first.descriptors, second.descriptors):
        yield _change_of(change)


def _types_of(side: Side) -> Sequence[str]:
    definition = side.definition
    named = [definition.input_type, definition.output_type]
    for step in definition.steps:
        named += [step.input_type, step.output_type]
    for hook in (definition.on_success, definition.on_failure):
        named += [hook.input_type, hook.output_type]
    return [name for name in dict.fromkeys(named) if name]


def _change_of(change: MessageChange) -> Change:
    verb = Verb.ADDED if not change.before else Verb.REMOVED if not change.after else Verb.CHANGED
    hint = "" if change.is_compatible else "what was written with the one cannot be read with the other: give it a new field number"
    place = f"message {change.message}, field number {change.number}"
    return Change(verb=verb, place=place, before=change.before, after=change.after, hint=hint)


# ── Fields as texts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def flatten(message: Message, prefix: str = "") -> dict[str, str]:
    """What is set in a message, as texts by path. Example: {"execute_retry.max_attempts": "3"}."""
    texts: dict[str, str] = {}
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if isinstance(value, Duration):
            texts[path] = duration_text(value)
        elif isinstance(value, saga_pb2.RetryPolicy):
            # One that says nothing is still not the one of the definition's defaults.
            texts |= flatten(_without_defaults(value), f"{path}.") or {path: USUAL_POLICY}
        elif isinstance(value, Message):
            texts |= flatten(value, f"{path}.")
        elif field.name == "non_retryable_codes":
            texts[path] = ", ".join(_code_name(code) for code in value)
        elif field.is_repeated:
            texts[path] = ", ".join(str(each) for each in value)
        else:
            texts[path] = _scalar_text(value)
    return texts


def _scalar_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_defaults(policy: saga_pb2.RetryPolicy) -> saga_pb2.RetryPolicy:
    unusual = saga_pb2.RetryPolicy()
    unusual.CopyFrom(policy)
    for field, value in RetryPolicy().to_message().ListFields():
        if getattr(policy, field.name) == value:
            unusual.ClearField(field.name)  # type: ignore[arg-type]  # one of its own
    return unusual


def duration_text(duration: Duration) -> str:
    """As definition files write it. Example: "1h30m", "200ms"."""
    nanos = duration.seconds * 10**9 + duration.nanos
    parts = []
    for unit, size in (("d", 86_400 * 10**9), ("h", 3_600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6)):
        count, nanos = divmod(nanos, size)
        if count:
            parts.append(f"{count}{unit}")
    if nanos:
        parts.append(f"{nanos / 1_000:g}us")
    return "".join(parts) or "0s"


def _code_name(code: int) -> str:
    return next((each.name for each in grpc.StatusCode if each.value[0] == code), str(code))
