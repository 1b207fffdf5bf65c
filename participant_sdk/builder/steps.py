"""Steps as they were written down, and the same on the wire."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypedDict

from participant_sdk.builder.drafts import ActionDraft, source_problems
from participant_sdk.builder.sources import Origin, Step, full_name, text_of
from participant_sdk.definitions.problems import Problem
from participant_sdk.policies import RetryPolicy, StepKind, to_duration, to_retry_message
from saga.v1 import saga_pb2


class StepOptions(TypedDict, total=False):
    """What may be said about a step. Times and policies not given are the saga's defaults, then the coordinator's."""

    id: str
    """Unique in the saga: a letter or underscore, then letters, digits, underscores; at most 64. Default: the action's name."""
    after: Sequence[Step]
    """The steps that must be done before this one. Default: the step before it. Empty: none, it starts with the saga."""
    when: str
    """Whether the step is executed: an expression whose value is a bool, "input.is_gift". If it is false the step is skipped.
    Default: always."""
    kind: StepKind
    """Default COMPENSATABLE."""
    execute_retry: RetryPolicy
    compensate_retry: RetryPolicy
    attempt_timeout: timedelta
    """For one attempt, in either direction."""
    execute_time_limit: timedelta
    """For all attempts to execute together, while the saga can still turn back."""
    compensate_time_limit: timedelta
    """For all attempts of recovery together, from the first failed one, until a person is asked."""


class TextStepOptions(StepOptions, total=False):
    """What may be said about a step whose action is named by its text."""

    without_compensation: bool
    """For BEST_EFFORT only: the action has no compensation, so that what it did stays when the saga turns back. Default False. For an
    action whose code is here the builder sees it by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDraft:
    """A step as it was written down, not yet judged."""

    step: Step
    action: ActionDraft
    source: Origin | str
    """What it is called with: a source of the saga, or an expression."""
    options: TextStepOptions

    @property
    def kind(self) -> StepKind:
        """As given, or the default."""
        return self.options.get("kind", StepKind.COMPENSATABLE)

    def to_message(self) -> saga_pb2.StepDefinition:
        """The same on the wire. Raises ValueError or TypeError if a value of it does not fit there."""
        options = self.options
        message = saga_pb2.StepDefinition(
            id=self.step.reference,
            action=self.action.name,
            input=text_of(self.source),
            when=options.get("when", ""),
            kind=saga_pb2.StepKind.ValueType(self.kind),
            execute_retry=to_retry_message(options.get("execute_retry")),
            compensate_retry=to_retry_message(options.get("compensate_retry")),
            attempt_timeout=to_duration(options.get("attempt_timeout")),
            execute_time_limit=to_duration(options.get("execute_time_limit")),
            compensate_time_limit=to_duration(options.get("compensate_time_limit")),
            input_type=full_name(self.action.request_type),
            output_type=full_name(self.action.response_type),
            without_compensation=self._is_without_compensation(),
        )
        if "after" in options:
            # Set even when it is empty: "none before it" differs from "the one before it".
            message.after.SetInParent()
            message.after.step_ids.extend(step.reference for step in self._predecessors() if step.owner is self.step.owner)
        return message

    def own_problems(self, path: str) -> Iterator[Problem]:
        """What only Python can see: objects of another saga, and whether the code of the action has a compensation."""
        if self.kind is StepKind.COMPENSATABLE and self.action.is_compensatable is False:  # R9
            name = self.action.name
            yield Problem(f"{path}.kind", f"{name} has no compensation; write one, or say kind=StepKind.READ_ONLY if it changes nothing")
        for step in self._predecessors():
            if step.owner is not self.step.owner:
                yield Problem(f"{path}.after", f"{step.reference!r} is a step of another saga")
        yield from source_problems(self.source, self.step.owner, f"{path}.input")

    def _predecessors(self) -> list[Step]:
        # Named twice is named once. Compared by identity, as steps of two sagas may have the same id.
        return list(dict.fromkeys(self.options.get("after", ())))

    def _is_without_compensation(self) -> bool:
        if "without_compensation" in self.options:
            return self.options["without_compensation"]
        return self.kind is StepKind.BEST_EFFORT and self.action.is_compensatable is False
