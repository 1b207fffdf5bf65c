"""The fixture `saga_kit`, and the event loop in virtual time that tests with it run in.

An `async def` test that asks for `saga_kit`, itself or through another fixture, is run by this plugin, with or without pytest-asyncio
or anyio and whatever their mode: no marker is needed. All other tests are left alone. Fixtures that are `async def` belong to those
other plugins and run in a loop of theirs, in real time: make what belongs to a loop, such as a database engine, in the test, or in a
function that is given to `saga_kit.serve`.
"""

import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from participant_sdk.testing.kit import SagaKit

FIXTURE: Final = "saga_kit"
_KIT: Final = pytest.StashKey["SagaKit"]()


@pytest.fixture
def saga_kit(request: pytest.FixtureRequest) -> "SagaKit":
    """A `participant_sdk.testing.SagaKit`: a real coordinator in virtual time. Starts when it is first used, and ends with the test."""
    from participant_sdk.testing import SagaKit  # noqa: PLC0415 - see the package

    request.node.stash[_KIT] = kit = SagaKit()
    return kit


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs the test, if it is one of ours; before other plugins and pytest itself have their turn."""
    if FIXTURE not in pyfuncitem.fixturenames:
        return None
    test = _find_coroutine_function(pyfuncitem.obj)
    if test is None:
        return None
    from participant_sdk.testing.virtual_time import run_in_virtual_time  # noqa: PLC0415 - see the package

    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}  # noqa: SLF001 - as every such plugin does
    run_in_virtual_time(_run(pyfuncitem, test(**arguments)))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows the stories of its sagas."""
    report = yield
    kit = item.stash.get(_KIT, None)
    if kit is not None and report.when == "call" and report.failed and kit.stories:
        report.sections.append(("sagas of this test, as they were looked at last", "\n\n".join(kit.stories)))
    return report


async def _run(item: pytest.Function, test: Coroutine[Any, Any, None]) -> None:
    kit = item.stash.get(_KIT, None)
    try:
        await test
    finally:
        if kit is not None:
            await kit.close()


def _find_coroutine_function(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, None]] | None:
    """The test itself, also where another plugin has wrapped it to run it in its own loop; None: it is a plain function."""
    found: Any = function
    while found is not None and not inspect.iscoroutinefunction(found):
        found = getattr(found, "__wrapped__", None)
    return found  # type: ignore[no-any-return] # looked at above
