"""What runs around every handler of a participant: measuring, logging with a tenant, refusing who may not.

A middleware is called with the run that is about to begin and answers a context manager, which is entered before the handler and left
after it. It sees what the handler raises and may raise itself, `Rejected` and `RetryLater` included; what the handler returns is not its
business.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from participant_sdk.actions import Action
from participant_sdk.errors import MiddlewareMisusedError
from participant_sdk.payloads import Payload
from participant_sdk.step_context import Step


class Direction(StrEnum):
    """Which of the two calls of a step."""

    EXECUTE = "execute"
    COMPENSATE = "compensate"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerRun:
    """One run of a handler that is about to begin."""

    action: Action[Any, Any]
    """Whose handler it is. Example: `run.action.qualified_name`."""
    direction: Direction
    request: Payload
    """What the action was called with."""
    output: Payload | None
    """What a compensation undoes; None in an execution, and where nobody knows it."""
    step: Step
    """What the handler is told."""


Middleware: TypeAlias = Callable[[HandlerRun], AbstractContextManager[object] | AbstractAsyncContextManager[object]]
"""Makes what a handler runs in. Asynchronous context managers are for `async def` handlers only: plain ones run in threads."""


@asynccontextmanager
async def around(middleware: Sequence[Middleware], run: HandlerRun) -> AsyncIterator[None]:
    """All of them around an `async def` handler, the first one outermost."""
    with _Unswallowed(run) as whole:
        async with AsyncExitStack() as stack:
            for each in middleware:
                made = each(run)
                if isinstance(made, AbstractAsyncContextManager):
                    await stack.enter_async_context(made)
                else:
                    stack.enter_context(_context_manager(made))
            yield
            whole.is_through = True


@contextmanager
def around_plain(middleware: Sequence[Middleware], run: HandlerRun) -> Iterator[None]:
    """The same for a plain handler, in its thread."""
    with _Unswallowed(run) as whole, ExitStack() as stack:
        for each in middleware:
            stack.enter_context(_context_manager(each(run)))
        yield
        whole.is_through = True


class _Unswallowed:
    """An error that a middleware swallows would make a success of a failure, and an undo that did not take place would count as done."""

    def __init__(self, run: HandlerRun) -> None:
        self._run: Final = run
        self.is_through = False
        """Whether the handler came to its end without an error."""

    def __enter__(self) -> "_Unswallowed":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None and not self.is_through:
            raise MiddlewareMisusedError(
                f"a middleware of {self._run.action.qualified_name} swallowed what its handler raised: let it pass, or raise another error"
            )


def _context_manager(made: object) -> AbstractContextManager[object]:
    if isinstance(made, AbstractContextManager):
        return made
    if isinstance(made, AbstractAsyncContextManager):
        raise MiddlewareMisusedError("an asynchronous middleware cannot run around a plain `def` handler, which runs in a thread: write it "
                                     "with @contextmanager, or the handler with `async def`")  # fmt: skip
    raise MiddlewareMisusedError(
        f"a middleware returns a context manager, found {type(made).__qualname__}: decorate it with @contextmanager"
    )
