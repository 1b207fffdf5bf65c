"""Random definitions of every shape that may be registered: graphs, kinds, conditions, expressions, limits, hooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import RetryPolicy, Saga, StepDefaults, StepKind
from participant_sdk.builder import StepHandle
from participant_sdk.builder.steps import TextStepOptions

PARTICIPANTS: Final = ("alpha", "beta", "gamma")
"""alpha has its effects in its own database, beta outside of it; gamma finishes its steps later."""
BEFORE: Final = (StepKind.COMPENSATABLE,) * 4 + (StepKind.READ_ONLY, StepKind.BEST_EFFORT)
AFTER: Final = (StepKind.RETRIABLE,) * 3 + (StepKind.READ_ONLY, StepKind.BEST_EFFORT)
WORDS: Final = ("red", "green", "blue")
"""What conditions look for in the input of a saga."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What checkers know of a definition, apart from the code that reads it."""

    kinds: dict[str, StepKind]
    before: dict[str, tuple[str, ...]]
    """Predecessors by step."""
    actions: dict[str, str]
    words: dict[str, str]
    """What the input of the saga must contain for a step to be executed; empty: nothing."""

    def is_wanted(self, step: str, saga_input: str) -> bool:
        """Whether a saga with that input executes the step."""
        return self.words[step] in saga_input

    def ancestors(self, step: str) -> set[str]:
        """Every step that must be done before."""
        found: set[str] = set()
        waiting = list(self.before[step])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.before[name]
        return found


def make_definition(name: str, chance: Random) -> tuple[Saga[StringValue], Shape]:
    """A definition that registration takes, and what it looks like."""
    names = [f"s{number}" for number in range(chance.choice((1, 2, 3, 3, 3, 4, 5, 6)))]
    kinds = _kinds(names, chance)
    before = {step: _before(place, names, kinds, chance) for place, step in enumerate(names)}
    defaults = StepDefaults(attempt_timeout=timedelta(seconds=chance.choice((1, 3, 10))), execute_retry=_retry(chance))
    saga = Saga(name, input=StringValue, time_limit=chance.choice((None, None, None, timedelta(seconds=20))), defaults=defaults)
    handles: dict[str, StepHandle[StringValue]] = {}
    actions: dict[str, str] = {}
    words: dict[str, str] = {}
    for step in names:
        actions[step] = _action(kinds[step], chance)
        words[step] = _word(kinds[step], chance)
        options = _options(step, kinds[step], [handles[name] for name in before[step]], words[step], chance)
        if kinds[step] is StepKind.BEST_EFFORT and actions[step].endswith(".last"):
            options["without_compensation"] = True
        handles[step] = saga.step(actions[step], _input(before[step], chance), request=StringValue, response=StringValue, **options)
    for hook in (saga.on_success, saga.on_failure):
        if chance.random() < 0.4:
            hook("alpha.last", request=StringValue, response=StringValue)
    return saga, Shape(kinds, {step: tuple(before[step]) for step in names}, actions, words)


def _kinds(names: Sequence[str], chance: Random) -> dict[str, StepKind]:
    turn = chance.randrange(len(names) + 1)
    kinds = {name: chance.choice(BEFORE if place < turn else AFTER) for place, name in enumerate(names)}
    if turn < len(names) and chance.random() < 0.7:
        kinds[names[turn]] = StepKind.PIVOT
    return kinds


def _before(place: int, names: Sequence[str], kinds: dict[str, StepKind], chance: Random) -> list[str]:
    """Any order that keeps what can be undone before the point of no return, and what must succeed behind it (R9)."""
    if not place:
        return []
    found = {chance.choice(names[:place]) for _ in range(chance.choice((0, 1, 1, 2)))}
    pivot = next((name for name in names if kinds[name] is StepKind.PIVOT), None)
    kind = kinds[names[place]]
    if kind is StepKind.PIVOT or (kind is StepKind.RETRIABLE and pivot is None):
        found.update(name for name in names if kinds[name] is StepKind.COMPENSATABLE)
    elif kind is StepKind.RETRIABLE and pivot is not None:
        found.add(pivot)
    return sorted(found)


def _action(kind: StepKind, chance: Random) -> str:
    if kind is StepKind.COMPENSATABLE:
        return chance.choice(("alpha.do", "alpha.do", "beta.do", "gamma.ask"))
    if kind is StepKind.BEST_EFFORT:
        return chance.choice(("alpha.do", "beta.do", "alpha.last"))
    return chance.choice(("alpha.last", "alpha.last", "beta.last"))


def _word(kind: StepKind, chance: Random) -> str:
    return chance.choice(WORDS) if kind not in (StepKind.RETRIABLE, StepKind.PIVOT) and chance.random() < 0.2 else ""


def _options(step: str, kind: StepKind, before: list[StepHandle[StringValue]], word: str, chance: Random) -> TextStepOptions:
    options = TextStepOptions(id=step, kind=kind, after=before, compensate_retry=_retry(chance, gives_up=False))
    if word:
        options["when"] = f'input.contains("{word}")'
    return options


def _retry(chance: Random, *, gives_up: bool = True) -> RetryPolicy:
    attempts = chance.choice((0, 0, 1, 2, 4)) if gives_up else 0
    backoff = timedelta(milliseconds=chance.choice((20, 200, 1000)))
    return RetryPolicy(max_attempts=attempts, initial_backoff=backoff, max_backoff=timedelta(seconds=30))


def _input(before: list[str], chance: Random) -> str:
    texts = ["input", *before]
    return f"google.protobuf.StringValue{{value: {' + '.join(chance.sample(texts, chance.randrange(1, len(texts) + 1)))}}}"
