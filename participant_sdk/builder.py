"""Sagas as typed Python: built without a server, checked by mypy while typing and by `definition()` before anything is sent.

    place_order = Saga("place-order", input=PlaceOrder)
    reserved = place_order.step(Inventory.reserve)
    charged = place_order.step(Payments.charge)
    place_order.step(Shipping.label, reserved, after=[reserved, charged])
    place_order.returns(charged)

A type checker refuses a source whose message type is not the one that the action takes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from types import MappingProxyType
from typing import Final, Generic, TypedDict, TypeVar, Unpack, cast, overload

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from participant_sdk.actions import Action
from participant_sdk.descriptors import closed_descriptors
from participant_sdk.policies import RetryPolicy, StepDefaults, StepKind, check_duration, to_duration
from saga.v1 import saga_pb2

STEPS_MAX: Final = 256
LABELS_MAX: Final = 64

# Invariant on purpose: were they covariant, a checker would accept any source for any action by joining both types to Message.
InputT = TypeVar("InputT", bound=Message)
RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
SourceT = TypeVar("SourceT", bound=Message)


class DefinitionError(Exception):
    """The saga is no valid definition; nothing was sent. Lists every problem, one per line."""

    def __init__(self, saga: str, problems: Sequence[str]) -> None:
        super().__init__(f"saga {saga!r} cannot be defined:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.saga = saga
        self.problems = tuple(problems)


class Origin:
    """A message that a saga has at hand: its input, or the output of a step. Made by `Saga`."""

    def __init__(self, *, owner: object, reference: str, message_type: type[Message], index: int | None) -> None:
        self.owner: Final = owner
        """The saga that made it. Compared by identity: two sagas may have the same name."""
        self.reference: Final = reference
        """As the definition names it: "input", or the id of a step."""
        self.message_type: Final = message_type
        self.index: Final = index
        """Place of the step, from 0; None for the input of the saga."""


class Source(Origin, Generic[SourceT]):
    """An origin whose message type a checker knows."""


class Step(Origin):
    """A place in the order of a saga, whatever its types."""


class StepHandle(Step, Source[SourceT]):
    """One step of a saga, and its output as a source for later steps."""

    @property
    def id(self) -> str:
        """Its id in the definition."""
        return self.reference


class StepOptions(TypedDict, total=False):
    """What may be said about a step. Times and policies not given are the saga's defaults, then the coordinator's."""

    id: str
    """Unique in the saga: a letter or underscore, then letters, digits, underscores; at most 64. Default: the action's name."""
    after: Sequence[Step]
    """The steps that must be done before this one. Default: the step before it. Empty: none, it starts with the saga."""
    kind: StepKind
    """Default COMPENSATABLE."""
    execute_retry: RetryPolicy
    compensate_retry: RetryPolicy
    attempt_timeout: timedelta
    execute_time_limit: timedelta
    compensate_time_limit: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A step as it was written down, not yet checked."""

    step: Step
    action: str
    request_type: type[Message]
    is_compensatable: bool | None
    """None: only the participant knows."""
    source: Origin
    options: StepOptions


class Saga(Generic[InputT]):
    """A saga definition under construction. Writing it down never raises; `definition()` says everything that is wrong."""

    def __init__(
        self,
        name: str,
        *,
        input: type[InputT],  # noqa: A002 - reads as the definition does
        version: int = 1,
        time_limit: timedelta | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        defaults: StepDefaults | None = None,
    ) -> None:
        """Begins a definition.

        `name`: letters, digits, dots, dashes, underscores; at most 128. `version`: from 1; raise it with every change,
        since a registered version never changes. `time_limit`: for the forward way of the whole saga, then it turns
        back; None: no limit.
        """
        self.name: Final = name
        self.version: Final = version
        self.input_type: Final = input
        self.input: Final[Source[InputT]] = Source(owner=self, reference=_SAGA_INPUT, message_type=input, index=None)
        """What the saga is started with, as a source for steps."""
        self._time_limit: Final = time_limit
        self._labels: Final = dict(labels)
        self._defaults: Final = defaults
        self._drafts: Final[list[_Draft]] = []
        self._output: Origin | None = None

    @overload
    def step(self, action: Action[InputT, ResponseT], **options: Unpack[StepOptions]) -> StepHandle[ResponseT]: ...

    @overload
    def step(
        self, action: Action[RequestT, ResponseT], input: Source[RequestT], **options: Unpack[StepOptions]
    ) -> StepHandle[ResponseT]: ...

    @overload
    def step(
        self, action: str, *, request: type[InputT], response: type[ResponseT], **options: Unpack[StepOptions]
    ) -> StepHandle[ResponseT]: ...

    @overload
    def step(
        self,
        action: str,
        input: Source[RequestT],
        *,
        request: type[RequestT],
        response: type[ResponseT],
        **options: Unpack[StepOptions],
    ) -> StepHandle[ResponseT]: ...

    def step(
        self,
        action: Action[RequestT, ResponseT] | str,
        input: Origin | None = None,  # noqa: A002 - reads as the definition does
        *,
        request: type[Message] | None = None,
        response: type[ResponseT] | None = None,
        **options: Unpack[StepOptions],
    ) -> StepHandle[ResponseT]:
        """Adds a step that calls `action` with `input`: the saga's input, which is the default, or the output of an earlier step.

        An action whose code is not here is named by its text, "inventory.reserve", with the message types that it takes
        and returns; whether it can be compensated is then checked by the coordinator.

        Raises TypeError if an action is named by its text without its types.
        """
        if not isinstance(action, str):
            return self._add(action.qualified_name, action.request_type, action.response_type, input, action.is_compensatable, options)
        if request is None or response is None:
            raise TypeError(f"step({action!r}) needs request=... and response=..., the message types that the action takes and returns")
        return self._add(action, request, response, input, None, options)

    def returns(self, output: Origin, /) -> None:
        """Makes the whole output of that step, or the saga's input, what the saga returns. Without it: nothing."""
        self._output = output

    def definition(self) -> saga_pb2.SagaDefinition:
        """The plan on the wire.

        Raises DefinitionError with every problem that can be seen without a server.
        """
        problems = list(chain(self._own_problems(), self._step_problems()))
        if problems:
            raise DefinitionError(self.name, problems)
        return saga_pb2.SagaDefinition(
            name=self.name,
            version=self.version,
            input_type=_full_name(self.input_type),
            steps=[_step_message(draft) for draft in self._drafts],
            output=self._output.reference if self._output is not None else "",
            time_limit=to_duration(self._time_limit),
            defaults=self._defaults.to_message() if self._defaults is not None else None,
            labels=self._labels,
        )

    def descriptors(self) -> FileDescriptorSet:
        """The message types that the plan names with everything that they import, each file after its imports."""
        inputs = (draft.request_type for draft in self._drafts)
        outputs = (draft.step.message_type for draft in self._drafts)
        types: Iterable[type[Message]] = chain((self.input_type,), inputs, outputs)
        # In the order of their files, so that the same definition is the same bytes each time it is registered.
        descriptors = (cast("Descriptor", each.DESCRIPTOR) for each in types)
        return closed_descriptors(sorted(descriptors, key=lambda descriptor: descriptor.file.name))

    def _add(
        self,
        action: str,
        request_type: type[Message],
        response_type: type[ResponseT],
        source: Origin | None,
        is_compensatable: bool | None,
        options: StepOptions,
    ) -> StepHandle[ResponseT]:
        step_id = options.get("id", action.rpartition(".")[2])
        step = StepHandle[ResponseT](owner=self, reference=step_id, message_type=response_type, index=len(self._drafts))
        self._drafts.append(
            _Draft(
                step=step,
                action=action,
                request_type=request_type,
                is_compensatable=is_compensatable,
                source=self.input if source is None else source,
                options=options,
            )
        )
        return step

    def _own_problems(self) -> Iterator[str]:
        if not _SAGA_NAME.fullmatch(self.name):
            yield f"name: expected 1 to 128 letters, digits, dots, dashes or underscores, found {self.name!r}"
        if not 1 <= self.version <= 2**32 - 1:
            yield f"version: expected a number from 1, found {self.version}"
        if not 1 <= len(self._drafts) <= STEPS_MAX:
            yield f"steps: expected 1 to {STEPS_MAX}, found {len(self._drafts)}; add one with .step(...)"
        if len(self._labels) > LABELS_MAX or not all(0 < len(key) <= 63 and len(text) <= 255 for key, text in self._labels.items()):
            yield f"labels: expected at most {LABELS_MAX}, with keys of 1 to 63 characters and values of at most 255"
        yield from _duration_problems("time_limit", self._time_limit)
        if self._output is not None and self._output.owner is not self:
            yield f"output: {self._output.reference!r} belongs to another saga"

    def _step_problems(self) -> Iterator[str]:
        seen: set[str] = set()
        ancestors: list[frozenset[int]] = []
        for place, draft in enumerate(self._drafts):
            step_id = draft.step.reference
            if step_id in seen:
                yield f"step {step_id}: the id is used twice; give one of them another with id=..."
            seen.add(step_id)
            before = [step.index for step in draft.options["after"]] if "after" in draft.options else range(max(0, place - 1), place)
            # Steps are made in order, so those of this saga that `after` can name are always earlier ones: there are no cycles.
            own = frozenset(index for index in before if index is not None and index < place)
            ancestors.append(own.union(*(ancestors[index] for index in own)))
            yield from (f"step {step_id}: {problem}" for problem in self._problems_of(draft, ancestors[place]))

    def _problems_of(self, draft: _Draft, ancestors: frozenset[int]) -> Iterator[str]:
        yield from _shape_problems(draft)
        for step in draft.options.get("after", ()):
            if step.owner is not self:
                yield f"after: {step.reference!r} is a step of another saga"
        source = draft.source
        if source.owner is not self:
            yield f"input: {source.reference!r} belongs to another saga"
        elif source.index is not None and source.index not in ancestors:
            yield f"input: step {source.reference!r} does not come before it; add it to after=[...]"
        if _full_name(source.message_type) != _full_name(draft.request_type):
            yield (
                f"input: {draft.action} takes {_full_name(draft.request_type)}, "
                f"but {source.reference!r} is a {_full_name(source.message_type)}"
            )


_SAGA_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_STEP_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ACTION_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}\.[A-Za-z_][A-Za-z0-9_]*")
_SAGA_INPUT: Final = "input"


def _shape_problems(draft: _Draft) -> Iterator[str]:
    if not _STEP_ID.fullmatch(draft.step.reference) or draft.step.reference == _SAGA_INPUT:
        yield "id: expected a letter or underscore, then letters, digits or underscores, at most 64, and not 'input'"
    if not _ACTION_NAME.fullmatch(draft.action):
        yield f"action: expected participant.action like 'inventory.reserve', found {draft.action!r}"
    if _kind_of(draft) is StepKind.COMPENSATABLE and draft.is_compensatable is False:  # R9
        yield f"kind: {draft.action} has no compensation; write one, or say kind=StepKind.READ_ONLY if it changes nothing"
    options = draft.options
    yield from _duration_problems("attempt_timeout", options.get("attempt_timeout"))
    yield from _duration_problems("execute_time_limit", options.get("execute_time_limit"))
    yield from _duration_problems("compensate_time_limit", options.get("compensate_time_limit"))


def _duration_problems(name: str, value: timedelta | None) -> Iterator[str]:
    try:
        check_duration(name, value)
    except ValueError as error:
        yield str(error)


def _step_message(draft: _Draft) -> saga_pb2.StepDefinition:
    options = draft.options
    execute_retry = options.get("execute_retry")
    compensate_retry = options.get("compensate_retry")
    message = saga_pb2.StepDefinition(
        id=draft.step.reference,
        action=draft.action,
        input=draft.source.reference,
        kind=saga_pb2.StepKind.ValueType(_kind_of(draft)),
        execute_retry=execute_retry.to_message() if execute_retry is not None else None,
        compensate_retry=compensate_retry.to_message() if compensate_retry is not None else None,
        attempt_timeout=to_duration(options.get("attempt_timeout")),
        execute_time_limit=to_duration(options.get("execute_time_limit")),
        compensate_time_limit=to_duration(options.get("compensate_time_limit")),
        input_type=_full_name(draft.request_type),
        output_type=_full_name(draft.step.message_type),
    )
    if "after" in options:
        # Set even when it is empty: "none before it" differs from "the one before it".
        message.after.SetInParent()
        message.after.step_ids.extend(dict.fromkeys(step.reference for step in options["after"]))
    return message


def _kind_of(draft: _Draft) -> StepKind:
    return draft.options.get("kind", StepKind.COMPENSATABLE)


def _full_name(message_type: type[Message]) -> str:
    return message_type.DESCRIPTOR.full_name
