"""What is called once when a saga has ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypedDict, TypeVar, Unpack, overload

from participant_sdk.actions import Action
from participant_sdk.builder.drafts import ActionDraft, draft_action, source_problems
from participant_sdk.builder.sources import Origin, Source, full_name, text_of
from participant_sdk.definitions.problems import Problem
from participant_sdk.payloads import Payload
from participant_sdk.policies import RetryPolicy, to_duration, to_retry_message
from saga.v1 import saga_pb2

InputT = TypeVar("InputT", bound=Payload)
RequestT = TypeVar("RequestT", bound=Payload)
ResponseT = TypeVar("ResponseT", bound=Payload)


class HookOptions(TypedDict, total=False):
    """What may be said about a hook. What is not given is the saga's default, then the coordinator's."""

    execute_retry: RetryPolicy
    attempt_timeout: timedelta
    """For one attempt."""
    time_limit: timedelta
    """For all attempts together, from the first failed one, until a person is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookDraft:
    """A hook as it was written down, not yet judged."""

    action: ActionDraft
    source: Origin | str
    options: HookOptions

    def to_message(self) -> saga_pb2.HookDefinition:
        """The same on the wire. Raises ValueError or TypeError if a value of it does not fit there."""
        return saga_pb2.HookDefinition(
            action=self.action.name,
            input=text_of(self.source),
            input_type=full_name(self.action.request_type),
            output_type=full_name(self.action.response_type),
            execute_retry=to_retry_message(self.options.get("execute_retry")),
            attempt_timeout=to_duration(self.options.get("attempt_timeout")),
            time_limit=to_duration(self.options.get("time_limit")),
        )


class Hook(Generic[InputT]):
    """A place for one action that is called when the saga has ended; call it with the action. Made by `Saga`."""

    def __init__(self, name: str, *, owner: object, saga_input: Source[InputT]) -> None:
        self.name: Final = name
        """Of the field in the definition: "on_success" or "on_failure"."""
        self._owner: Final = owner
        self._saga_input: Final = saga_input
        self._drafts: Final[list[HookDraft]] = []

    @overload
    def __call__(self, action: Action[InputT, ResponseT], **options: Unpack[HookOptions]) -> None: ...

    @overload
    def __call__(self, action: Action[RequestT, ResponseT], input: Source[RequestT] | str, **options: Unpack[HookOptions]) -> None: ...

    @overload
    def __call__(self, action: str, *, request: type[InputT], response: type[ResponseT], **options: Unpack[HookOptions]) -> None: ...

    @overload
    def __call__(
        self,
        action: str,
        input: Source[RequestT] | str,
        *,
        request: type[RequestT],
        response: type[ResponseT],
        **options: Unpack[HookOptions],
    ) -> None: ...

    def __call__(
        self,
        action: Action[RequestT, ResponseT] | str,
        input: Origin | str | None = None,  # noqa: A002 - reads as the definition does
        *,
        request: type[Any] | None = None,
        response: type[Any] | None = None,
        **options: Unpack[HookOptions],
    ) -> None:
        """Calls `action` with `input` once the saga has ended: a source of the saga, or an expression.

        Expressions may read the input of the saga, the outputs of all steps and `ran`; that of on_success also `output`, what the saga
        returned, and that of on_failure `error`, a google.rpc.Status. Without `input`: the input of the saga.

        Raises TypeError if an action is named by its text without its types.
        """
        draft = HookDraft(
            action=draft_action(action, request, response), source=self._saga_input if input is None else input, options=options
        )
        self._drafts.append(draft)

    @property
    def draft(self) -> HookDraft | None:
        """As it was written down last; None if it was not."""
        return self._drafts[-1] if self._drafts else None

    def own_problems(self) -> Iterator[Problem]:
        """What only Python can see."""
        path = f"definition.{self.name}"
        if len(self._drafts) > 1:
            yield Problem(path, f"expected one action, found {len(self._drafts)}; call {self.name}(...) once")
        for draft in self._drafts:
            yield from source_problems(draft.source, self._owner, f"{path}.input")
