"""Sync faces of async classes: each method is the async one, waited for. There is no second implementation."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from types import MethodType, TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from participant_sdk.client.loop_thread import LoopThread

ParametersP = ParamSpec("ParametersP")
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class Face:
    """What has an async object behind it, and a thread to run it on."""

    def __init__(self, behind: object, thread: LoopThread) -> None:
        self._behind: Final[Any] = behind
        self._thread: Final = thread

    def _wait_for(self, method: Callable[..., Coroutine[Any, Any, ResultT]], *arguments: object, **options: object) -> ResultT:
        """What the method of the object behind this gives."""
        return self._thread.run(method(self._behind, *arguments, **options))

    def _iterate(self, method: Callable[..., AsyncGenerator[ItemT]], *arguments: object, **options: object) -> "BlockingIterator[ItemT]":
        """What the method of the object behind this yields."""
        return BlockingIterator(method(self._behind, *arguments, **options), self._thread)


class blocking(Generic[ParametersP, ResultT]):  # noqa: N801 - written like a decorator
    """A method of a Face: the async method, waited for. `get = blocking(SagaClient.get)`."""

    def __init__(self, method: Callable[Concatenate[Any, ParametersP], Coroutine[Any, Any, ResultT]], /) -> None:
        @wraps(method)
        def call(face: Face, /, *arguments: ParametersP.args, **options: ParametersP.kwargs) -> ResultT:
            return face._wait_for(method, *arguments, **options)  # noqa: SLF001 - a method of the face

        self._call: Final = call

    @overload
    def __get__(self, face: None, owner: type) -> Callable[Concatenate[Any, ParametersP], ResultT]: ...
    @overload
    def __get__(self, face: Face, owner: type) -> Callable[ParametersP, ResultT]: ...
    def __get__(self, face: Face | None, owner: type) -> Callable[..., ResultT]:
        return self._call if face is None else MethodType(self._call, face)


class iterating(Generic[ParametersP, ItemT]):  # noqa: N801 - written like a decorator
    """A method of a Face: what the async method yields, waited for one by one. `watch = iterating(SagaClient.watch)`."""

    def __init__(self, method: Callable[Concatenate[Any, ParametersP], AsyncGenerator[ItemT]], /) -> None:
        @wraps(method)
        def call(face: Face, /, *arguments: ParametersP.args, **options: ParametersP.kwargs) -> BlockingIterator[ItemT]:
            return face._iterate(method, *arguments, **options)  # noqa: SLF001 - a method of the face

        self._call: Final = call

    @overload
    def __get__(self, face: None, owner: type) -> "Callable[Concatenate[Any, ParametersP], BlockingIterator[ItemT]]": ...
    @overload
    def __get__(self, face: Face, owner: type) -> "Callable[ParametersP, BlockingIterator[ItemT]]": ...
    def __get__(self, face: Face | None, owner: type) -> "Callable[..., BlockingIterator[ItemT]]":
        return self._call if face is None else MethodType(self._call, face)


class BlockingIterator(Iterator[ItemT]):
    """What an async generator yields. Close it to stop in the middle, or use it with `with`; one that is forgotten closes itself."""

    def __init__(self, items: AsyncGenerator[ItemT], thread: LoopThread) -> None:
        self._items: Final = items
        self._thread: Final = thread
        self._has_begun = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        self._has_begun = True
        found = self._thread.run(_next(self._items))
        if not found:
            raise StopIteration
        return found[0]

    def close(self) -> None:
        """Stops: nothing stays open at the coordinator. Safe to call twice, and after the client was closed."""
        if self._has_begun and self._thread.is_running:
            self._thread.run(self._items.aclose())
        self._has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if self._has_begun:
            self._thread.undo(self._items.aclose)


async def _next(items: AsyncGenerator[ItemT]) -> tuple[ItemT] | tuple[()]:
    """The next item; nothing when there is none."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return ()
