"""What tests are written with: of one handler, of a participant, and of whole sagas.

`MemoryBarrier` and `step_context` need nothing more than the SDK. Everything else runs the real coordinator in process, and is loaded
when it is first asked for: it needs the extra `testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from participant_sdk.testing.contexts import completion_token, step_context, sync_step_context
from participant_sdk.testing.errors import KitError, SagaStandstillError
from participant_sdk.testing.memory_barrier import MemoryBarrier, MemoryDatabase, at_commit
from participant_sdk.testing.stubs import Stub, StubFailure, stub, stubs_of
from participant_sdk.testing.virtual_time import StandstillError, VirtualTimeLoop, run_in_virtual_time

if TYPE_CHECKING:
    from participant_sdk.testing.exploring import Exploration, PromiseBrokenError, explore
    from participant_sdk.testing.faults import Mishap
    from participant_sdk.testing.kit import SagaKit
    from participant_sdk.testing.ledger import Call, CallOutcome
    from participant_sdk.testing.plans import Definition
    from participant_sdk.testing.saga_run import SagaRun
    from participant_sdk.testing.scenario import Given, given
    from participant_sdk.testing.serving import Servicer

__all__ = [
    "Call",
    "CallOutcome",
    "Definition",
    "Exploration",
    "Given",
    "KitError",
    "MemoryBarrier",
    "MemoryDatabase",
    "Mishap",
    "PromiseBrokenError",
    "SagaKit",
    "SagaRun",
    "SagaStandstillError",
    "Servicer",
    "StandstillError",
    "Stub",
    "StubFailure",
    "VirtualTimeLoop",
    "at_commit",
    "completion_token",
    "explore",
    "given",
    "run_in_virtual_time",
    "step_context",
    "stub",
    "stubs_of",
    "sync_step_context",
]

_OF_THE_EXTRA: Final = {
    "Call": "ledger",
    "CallOutcome": "ledger",
    "Definition": "plans",
    "Exploration": "exploring",
    "Given": "scenario",
    "Mishap": "faults",
    "PromiseBrokenError": "exploring",
    "SagaKit": "kit",
    "SagaRun": "saga_run",
    "Servicer": "serving",
    "explore": "exploring",
    "given": "scenario",
}
"""Module by name."""
_COMES_WITH_THE_EXTRA: Final = frozenset(
    {"aiosqlite", "alembic", "cel_expr_python", "click", "opentelemetry", "rich", "sqlalchemy", "yaml"}
)


def __getattr__(name: str) -> object:
    module = _OF_THE_EXTRA.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _COMES_WITH_THE_EXTRA:
            raise
        raise ImportError(
            f"{name} runs the real coordinator, which needs {error.name}: install the extra with pip install 'saga-coordinator[testing]'"
        ) from error
