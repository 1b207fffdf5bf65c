"""The saga definition under construction."""

from collections.abc import Callable, Iterator, Mapping, Set
from datetime import timedelta
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeVar, Unpack, cast, overload

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from typing_extensions import TypeVar as TypeVarWithDefault

from participant_sdk.actions import Action
from participant_sdk.builder.drafts import ActionDraft, draft_action, source_problems
from participant_sdk.builder.errors import DefinitionError
from participant_sdk.builder.hooks import Hook
from participant_sdk.builder.places import describe_problem, reading_order
from participant_sdk.builder.sources import SAGA_INPUT, Origin, Source, StepHandle, full_name, text_of
from participant_sdk.builder.steps import StepDraft, StepOptions, TextStepOptions
from participant_sdk.definitions.problems import Problem
from participant_sdk.descriptors import DescriptorConflictError, closed_descriptors
from participant_sdk.payloads import Payload, payload_type
from participant_sdk.policies import StepDefaults, to_duration
from saga.v1 import saga_pb2

InputT = TypeVar("InputT", bound=Payload)
OutputT = TypeVarWithDefault("OutputT", default=Any)
"""What a saga returns: None if that is nothing. `Saga[PlaceOrder]` in an annotation stands for one that returns whatever."""
RequestT = TypeVar("RequestT", bound=Payload)
ResponseT = TypeVar("ResponseT", bound=Payload)
ResultT = TypeVar("ResultT")
MessageT = TypeVar("MessageT", bound=Message)


class Saga(Generic[InputT, OutputT]):
    """A saga definition under construction. Writing it down never raises for what a definition may not say; `definition()` says
    everything that is wrong, as the coordinator would."""

    @overload
    def __init__(
        self: "Saga[InputT, None]",
        name: str,
        *,
        input: type[InputT],
        version: int = 1,
        time_limit: timedelta | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        defaults: StepDefaults | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        *,
        input: type[InputT],
        output: type[OutputT],
        version: int = 1,
        time_limit: timedelta | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        defaults: StepDefaults | None = None,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        *,
        input: type[InputT],  # noqa: A002 - reads as the definition does
        output: type[OutputT] | None = None,
        version: int = 1,
        time_limit: timedelta | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        defaults: StepDefaults | None = None,
    ) -> None:
        """Begins a definition.

        `output`: the message that it returns, which `returns` takes from somewhere; None: what `returns` says, or nothing.
        `name`: letters, digits, dots, dashes, underscores; at most 128. `version`: from 1; raise it with every change,
        since a registered version never changes. `time_limit`: for the forward way of the whole saga, then it turns
        back unless it has passed its point of no return; None: no limit.
        """
        self.name: Final = name
        self.version: Final = version
        self.input_type: Final = input
        self.input: Final[Source[InputT]] = Source(owner=self, reference=SAGA_INPUT, message_type=input)
        """What the saga is started with, as a source for steps."""
        self.on_success: Final[Hook[InputT]] = Hook("on_success", owner=self, saga_input=self.input)
        """Called with an action: what is called once when the saga is COMPLETED."""
        self.on_failure: Final[Hook[InputT]] = Hook("on_failure", owner=self, saga_input=self.input)
        """Called with an action: what is called once when the saga is COMPENSATED or terminated."""
        self._time_limit: Final = time_limit
        self._labels: Final = dict(labels)
        self._defaults: Final = defaults
        self._drafts: Final[list[StepDraft]] = []
        self._output: Origin | str = ""
        self._declared_output: Final = output
        self._output_type: type[Any] | None = output

    @overload
    def step(self, action: Action[InputT, ResponseT], **options: Unpack[StepOptions]) -> StepHandle[ResponseT]: ...

    @overload
    def step(
        self, action: Action[RequestT, ResponseT], input: Source[RequestT] | str, **options: Unpack[StepOptions]
    ) -> StepHandle[ResponseT]: ...

    @overload
    def step(
        self, action: str, *, request: type[InputT], response: type[ResponseT], **options: Unpack[TextStepOptions]
    ) -> StepHandle[ResponseT]: ...

    @overload
    def step(
        self,
        action: str,
        input: Source[RequestT] | str,
        *,
        request: type[RequestT],
        response: type[ResponseT],
        **options: Unpack[TextStepOptions],
    ) -> StepHandle[ResponseT]: ...

    def step(
        self,
        action: Action[RequestT, ResponseT] | str,
        input: Origin | str | None = None,  # noqa: A002 - reads as the definition does
        *,
        request: type[Any] | None = None,
        response: type[ResponseT] | None = None,
        **options: Unpack[TextStepOptions],
    ) -> StepHandle[ResponseT]:
        """Adds a step that calls `action` with `input`: the saga's input, which is the default, the output of an earlier step, or an
        expression of the Common Expression Language whose value is the message that the action takes.

        An action whose code is not here is named by its text, "inventory.reserve", with the message types that it takes
        and returns; whether it can be compensated is then checked by the coordinator.

        Raises TypeError if an action is named by its text without its types.
        """
        drafted = draft_action(action, request, response)
        step = StepHandle[ResponseT](
            owner=self,
            reference=options.get("id", drafted.name.rpartition(".")[2]),
            message_type=cast("type[ResponseT]", drafted.response_type),
        )
        source = self.input if input is None else input
        self._drafts.append(StepDraft(step=step, action=drafted, source=source, options=options))
        return step

    @property
    def output_type(self) -> type[OutputT] | None:
        """The message that it returns; None if that is nothing."""
        return self._output_type

    @overload
    def returns(self: "Saga[InputT, None]", output: Source[ResultT], /) -> "Saga[InputT, ResultT]": ...

    @overload
    def returns(self: "Saga[InputT, None]", output: str, output_type: type[ResultT], /) -> "Saga[InputT, ResultT]": ...

    @overload
    def returns(self, output: Source[OutputT] | str, /) -> Self: ...

    @overload
    def returns(self, output: str, output_type: type[OutputT], /) -> Self: ...

    def returns(self, output: Origin | str, output_type: type[Any] | None = None, /) -> "Saga[InputT, Any]":
        """Says what the saga returns: the whole output of a step, the saga's input, or an expression that may read the outputs of all
        steps, whose message type is `output_type` or else the `output` of this saga. Without it: nothing.

        Returns this saga, as one whose output a type checker knows: for a saga that was made without `output`.
        Raises TypeError if an expression comes without its message type.
        """
        if not isinstance(output, Origin) and output_type is None and self._declared_output is None:
            raise TypeError(f"returns({output!r}) needs the message type that it is: returns({output!r}, PlaceOrderResult)")
        self._output = output
        self._output_type = output.message_type if isinstance(output, Origin) else output_type or self._declared_output
        return self

    def actions(self) -> list[ActionDraft]:
        """The actions of its steps and hooks, each as it was named, in their order."""
        hooks = (hook.draft.action for hook in (self.on_success, self.on_failure) if hook.draft is not None)
        return [*(draft.action for draft in self._drafts), *hooks]

    def definition(self) -> saga_pb2.SagaDefinition:
        """The plan on the wire, judged by the rules of the coordinator.

        Expressions are compiled only if the extra `definitions` is installed; otherwise the coordinator does so when the saga is
        registered.

        Raises DefinitionError with every problem that can be seen without a server.
        """
        definition, misfits = self._written_down()
        own = list(self._own_problems())
        # What does not fit on the wire is told by itself: judging the rest would only tell what follows from it.
        problems = [*own, *(misfits or _judged(definition, self.descriptors, told={problem.field for problem in own}))]
        if problems:
            raise DefinitionError(self.name, [describe_problem(definition, problem) for problem in sorted(problems, key=reading_order)])
        return definition

    def descriptors(self) -> FileDescriptorSet:
        """The message types that the plan names with everything that they import, each file after its imports."""
        of_actions = chain.from_iterable((action.request_type, action.response_type) for action in self.actions())
        types: Iterator[type[Any]] = chain((self.input_type,), of_actions, (self._output_type,) if self._output_type is not None else ())
        # In the order of their files, so that the same definition is the same bytes each time it is registered.
        descriptors = (payload_type(each).descriptor for each in types)
        return closed_descriptors(sorted(descriptors, key=lambda descriptor: descriptor.file.name))

    def _written_down(self) -> tuple[saga_pb2.SagaDefinition, list[Problem]]:
        """The plan on the wire, and what does not fit there: that is left out."""
        misfits: list[Problem] = []
        definition = _fitting(self._head, saga_pb2.SagaDefinition(), "definition", misfits)
        for index, draft in enumerate(self._drafts):
            definition.steps.append(_fitting(draft.to_message, saga_pb2.StepDefinition(), f"definition.steps[{index}]", misfits))
        for hook, place in ((self.on_success, definition.on_success), (self.on_failure, definition.on_failure)):
            if hook.draft is not None:
                place.CopyFrom(_fitting(hook.draft.to_message, saga_pb2.HookDefinition(), f"definition.{hook.name}", misfits))
        return definition, misfits

    def _head(self) -> saga_pb2.SagaDefinition:
        return saga_pb2.SagaDefinition(
            name=self.name,
            version=self.version,
            input_type=full_name(self.input_type),
            output=text_of(self._output),
            output_type=self._told_output_type(),
            time_limit=to_duration(self._time_limit),
            defaults=self._defaults.to_message() if self._defaults is not None else None,
            labels=self._labels,
        )

    def _told_output_type(self) -> str:
        """A source says by itself what it is; an expression does not."""
        is_expression = isinstance(self._output, str) and self._output
        return full_name(self._output_type) if is_expression and self._output_type is not None else ""

    def _own_problems(self) -> Iterator[Problem]:
        """What only Python can see."""
        for index, draft in enumerate(self._drafts):
            yield from draft.own_problems(f"definition.steps[{index}]")
        yield from self._output_problems()
        yield from self.on_success.own_problems()
        yield from self.on_failure.own_problems()

    def _output_problems(self) -> Iterator[Problem]:
        yield from source_problems(self._output, self, "definition.output")
        declared, found = self._declared_output, self._output_type
        if declared is not None and not self._output:
            yield Problem("definition.output", f"expected what the {declared.__name__} is that this saga returns: say it with returns(...)")
        elif declared is not None and found is not declared and found is not None:
            yield Problem("definition.output", f"expected a {declared.__name__}, as output=... says, found a {found.__name__}")


def _fitting(build: Callable[[], MessageT], fallback: MessageT, path: str, misfits: list[Problem]) -> MessageT:
    try:
        return build()
    except (ValueError, TypeError) as error:
        # A version below zero, a duration of a thousand years, a text that is no Unicode.
        misfits.append(Problem(path, f"does not fit into a definition: {error}"))
        return fallback


def _judged(definition: saga_pb2.SagaDefinition, descriptors: Callable[[], FileDescriptorSet], *, told: Set[str]) -> list[Problem]:
    """What the rules of the coordinator say, without the places of which something was told already."""
    # All of the rules with the words for their mistakes: what only starts sagas does without.
    from participant_sdk.definitions import MessageTypes, UnusableDescriptorsError, find_problems  # noqa: PLC0415

    try:
        types = MessageTypes(descriptors())
    except (UnusableDescriptorsError, DescriptorConflictError) as error:
        return [Problem("descriptors", str(error))]
    return [problem for problem in find_problems(definition, types) if problem.field not in told]
