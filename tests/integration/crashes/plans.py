"""The sagas of the crash tests: every kind of step, in shapes that come to their end, without a person unless a pivot was refused in doubt.

A client writes into the input what is to go wrong; whoever reads a story sees there how it was meant to end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from types import MappingProxyType
from typing import Final

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import RetryPolicy, Saga, StepDefaults, StepKind
from participant_sdk.builder import StepHandle
from participant_sdk.builder.steps import TextStepOptions
from tests.simulation.plans import Shape

WITHOUT_END: Final = RetryPolicy(max_attempts=0, initial_backoff=timedelta(milliseconds=50), max_backoff=timedelta(milliseconds=500))
ATTEMPT_TIMEOUT: Final = timedelta(seconds=2)
"""Short, because whoever turns back after a crash waits for the end of the calls that nobody has heard of since (R12)."""
TIME_LIMIT: Final = timedelta(seconds=4)
"""Of the sagas that have one: some of them pass it."""

UNDOABLE, READ_ONLY, PIVOT = StepKind.COMPENSATABLE, StepKind.READ_ONLY, StepKind.PIVOT
RETRIABLE, BEST_EFFORT = StepKind.RETRIABLE, StepKind.BEST_EFFORT
CONDITION: Final = "gift"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan."""

    action: str
    kind: StepKind
    after: str = ""
    """Ids of its predecessors, with blanks between."""
    word: str = ""
    """What the input must contain for the step to be executed; empty: nothing."""


PLANS: Final[Mapping[str, Mapping[str, Step]]] = MappingProxyType(
    {
        "chain": {
            "stock": Step("alpha.do", UNDOABLE),
            "card": Step("beta.do", UNDOABLE, "stock"),
            "pay": Step("alpha.last", PIVOT, "card"),
            "ship": Step("beta.last", RETRIABLE, "pay"),
        },
        "long": {
            "stock": Step("alpha.do", UNDOABLE),
            "ask": Step("gamma.ask", UNDOABLE, "stock"),
            "book": Step("alpha.do", UNDOABLE, "ask"),
        },
        "wide": {
            "left": Step("alpha.do", UNDOABLE),
            "middle": Step("gamma.ask", UNDOABLE),
            "right": Step("beta.do", UNDOABLE),
            "look": Step("alpha.last", READ_ONLY),
            "pay": Step("beta.last", PIVOT, "left middle right look"),
            "send": Step("alpha.last", RETRIABLE, "pay"),
            "note": Step("beta.do", BEST_EFFORT, "pay"),
        },
        "open": {
            "flight": Step("beta.do", UNDOABLE),
            "hotel": Step("alpha.do", UNDOABLE),
            "wrap": Step("alpha.do", UNDOABLE, "flight", CONDITION),
            "note": Step("alpha.do", BEST_EFFORT, "hotel"),
            "car": Step("alpha.do", UNDOABLE, "flight hotel"),
        },
    }
)
HOOKED: Final = frozenset({"chain", "open"})
"""Plans with hooks for both ends."""
LIMITED: Final = frozenset({"open"})
"""Plans with a time limit."""


def saga_of(name: str) -> Saga[StringValue]:
    """The definition of a plan."""
    limit = TIME_LIMIT if name in LIMITED else None
    defaults = StepDefaults(attempt_timeout=ATTEMPT_TIMEOUT, execute_retry=WITHOUT_END, compensate_retry=WITHOUT_END)
    saga = Saga(name, input=StringValue, time_limit=limit, defaults=defaults)
    handles: dict[str, StepHandle[StringValue]] = {}
    for step_id, step in PLANS[name].items():
        options = TextStepOptions(id=step_id, kind=step.kind, after=[handles[each] for each in step.after.split()])
        if step.word:
            options["when"] = f'input.contains("{step.word}")'
        handles[step_id] = saga.step(step.action, saga.input, request=StringValue, response=StringValue, **options)
    if name in HOOKED:
        for hook in (saga.on_success, saga.on_failure):
            hook("alpha.last", request=StringValue, response=StringValue)
    return saga


def shape_of(name: str) -> Shape:
    """What checkers know of a plan."""
    plan = PLANS[name]
    return Shape(
        kinds={step_id: step.kind for step_id, step in plan.items()},
        before={step_id: tuple(step.after.split()) for step_id, step in plan.items()},
        actions={step_id: step.action for step_id, step in plan.items()},
        words={step_id: step.word for step_id, step in plan.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One saga that a client is to start."""

    number: int
    plan: str
    input: str
    has_key: bool
    """Whether it is started by an idempotency key, with an id that is forgotten when the client dies."""
    is_watched: bool
    is_cancelled: bool


def wish_of(number: int, chance: Random) -> Wish:
    """What the saga of that number is to be: half of them are refused somewhere, or have something else that goes wrong."""
    plan = chance.choice(sorted(PLANS))
    words = [f"#{number}"]
    if chance.random() < 0.5:
        words.append(CONDITION)
    refusable = [step_id for step_id, step in PLANS[plan].items() if step.kind is not RETRIABLE]
    if chance.random() < 0.3:
        words.append(f"refuse:{chance.choice(refusable)}")
    if chance.random() < 0.3:
        words.append(f"stumble:{chance.choice(sorted(PLANS[plan]))}")
    return Wish(
        number=number,
        plan=plan,
        input=" ".join(words),
        has_key=chance.random() < 0.5,
        is_watched=chance.random() < 0.3,
        is_cancelled=chance.random() < 0.05,
    )


def is_refused(wish_input: str, shape: Shape) -> bool:
    """Whether some step that the saga needs is refused."""
    refused = {word.removeprefix("refuse:") for word in wish_input.split() if word.startswith("refuse:")}
    return any(shape.is_wanted(step, wish_input) and shape.kinds[step] is not BEST_EFFORT for step in refused)
