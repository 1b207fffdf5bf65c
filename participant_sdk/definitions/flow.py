"""How data flows in a definition: every expression compiled, with what it may read where it stands."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from participant_sdk.definitions.complaints import RAN, Scope, excerpt, suggest
from participant_sdk.definitions.expressions import BOOL, DYN, Expressions, MistakesError, Program, Wanted, can_check_expressions
from participant_sdk.definitions.message_types import MessageTypes
from participant_sdk.definitions.problems import PROBLEMS_MAX, Problem
from participant_sdk.definitions.words import with_article
from saga.v1 import saga_pb2

INPUT: Final = "input"
OUTPUT: Final = "output"
ERROR: Final = "error"
ERROR_TYPE: Final = "google.rpc.Status"
EXPRESSIONS_CHARS_MAX: Final = 64_000
"""Of all expressions of a definition together. The worst that passes takes about a second to compile."""
STEP_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
RESERVED_STEP_IDS: Final = frozenset(
    {"input", "output", "ran", "error", "on_success", "on_failure"}
    | {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"}
    | {"loop", "package", "namespace", "return", "var", "void", "while"}
)
"""Names of other variables and of hooks; the rest are no identifiers of the Common Expression Language."""
_LITERALS: Final = frozenset({"true", "false", "null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A whole message that is there already: the input of the saga, or the output of a step, byte by byte."""

    name: str


Source = Copy | Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The expressions of a definition, compiled. None where there is no expression; nothing is said of one that has problems."""

    inputs: tuple[Source | None, ...]
    """Per step."""
    conditions: tuple[Program | None, ...]
    """Per step."""
    output: Source | None
    output_type: str
    """Full name of what the saga returns; empty if that is nothing."""
    on_success: Source | None
    on_failure: Source | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where an expression stands."""

    path: str
    text: str
    variables: Mapping[str, str]
    """Everything that has a name in the definition, with its type: what is not available here is told as that, and not as unknown."""
    available: frozenset[str]
    """Inputs and outputs that are there when it is evaluated."""
    wanted: Wanted | None
    """None: its type is not known, so that nothing can be wanted."""
    container: str
    explain: Callable[[str], str]
    """Why a name is not available, and what to do."""


def check_flow(
    definition: saga_pb2.SagaDefinition, types: MessageTypes, ancestors: Sequence[frozenset[str]] | None
) -> tuple[Flow, list[Problem]]:
    """Compiles every expression; also the problems. `ancestors`: per step; None if the graph is not sound: then all is taken as there."""
    checker = _FlowChecker(definition, types, ancestors)
    flow = checker.check()
    return flow, checker.problems


@dataclass(slots=True)
class _FlowChecker:
    definition: saga_pb2.SagaDefinition
    types: MessageTypes
    ancestors: Sequence[frozenset[str]] | None
    problems: list[Problem] = field(default_factory=list)
    _chars: int = 0
    _expressions: Expressions = field(init=False)
    _variables: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._expressions = Expressions(self.types)
        self._variables = {INPUT: self._known(self.definition.input_type)}
        for step in self.definition.steps:
            if STEP_ID.fullmatch(step.id) and step.id not in RESERVED_STEP_IDS:
                self._variables[step.id] = self._known(step.output_type)
                self._variables[f"{RAN}{step.id}"] = BOOL

    def check(self) -> Flow:
        steps = range(len(self.definition.steps))
        inputs = tuple(self._step_input(index) for index in steps)
        conditions = tuple(self._condition(index) for index in steps)
        output, output_type = self._output()
        return Flow(
            inputs=inputs,
            conditions=conditions,
            output=output,
            output_type="" if output_type == DYN else output_type,
            on_success=self._hook("on_success", {OUTPUT: output_type} if self.definition.output else {}),
            on_failure=self._hook("on_failure", {ERROR: ERROR_TYPE}),
        )

    def _step_input(self, index: int) -> Source | None:
        step = self.definition.steps[index]
        return self._compile(
            self._step_place(index, "input", step.input or INPUT, self._wanted(step.input_type, f"{step.action} takes it"))
        )

    def _condition(self, index: int) -> Program | None:
        text = self.definition.steps[index].when
        if not text:
            return None
        found = self._compile(self._step_place(index, "when", text, Wanted(type_name=BOOL, because="it says whether the step is executed")))
        return found if isinstance(found, Program) else None

    def _step_place(self, index: int, name: str, text: str, wanted: Wanted | None) -> _Place:
        step = self.definition.steps[index]
        return _Place(
            path=f"definition.steps[{index}].{name}",
            text=text,
            variables=self._variables,
            available=frozenset(self._variables) if self.ancestors is None else self.ancestors[index] | {INPUT},
            wanted=wanted,
            container=self._package_of(step.input_type),
            explain=lambda missing: self._explain_order(missing, index),
        )

    def _output(self) -> tuple[Source | None, str]:
        definition = self.definition
        if not definition.output:
            if definition.output_type:
                self.problems.append(Problem("definition.output_type", "expected an output too: this says what message it is"))
            return None, ""
        wanted_type = self._known(definition.output_type) if definition.output_type else ""
        wanted = None if wanted_type == DYN else Wanted(type_name=wanted_type, because="the saga returns it")
        container = self._package_of(definition.output_type or definition.input_type)
        found = self._compile(self._place_at_end("definition.output", definition.output, self._variables, wanted, container))
        if isinstance(found, Copy):
            return found, self._variables[found.name]
        return found, found.result if found is not None else wanted_type or DYN

    def _hook(self, name: str, more: Mapping[str, str]) -> Source | None:
        if not self.definition.HasField(name):  # type: ignore[arg-type] # the name of one of two fields
            return None
        hook: saga_pb2.HookDefinition = getattr(self.definition, name)
        wanted, variables = self._wanted(hook.input_type, f"{hook.action} takes it"), {**self._variables, **more}
        place = self._place_at_end(f"definition.{name}.input", hook.input or INPUT, variables, wanted, self._package_of(hook.input_type))
        return self._compile(place)

    def _place_at_end(self, path: str, text: str, variables: Mapping[str, str], wanted: Wanted | None, container: str) -> _Place:
        return _Place(
            path=path, text=text, variables=variables, available=frozenset(variables), wanted=wanted, container=container, explain=str
        )

    def _compile(self, place: _Place) -> Source | None:
        if len(self.problems) >= PROBLEMS_MAX:
            return None  # no more are told, and each takes its time
        self._chars += len(place.text)
        if self._chars > EXPRESSIONS_CHARS_MAX:
            if self._chars - len(place.text) <= EXPRESSIONS_CHARS_MAX:
                self.problems.append(
                    Problem(place.path, f"expected at most {EXPRESSIONS_CHARS_MAX} characters in all expressions together")
                )
            return None
        if place.variables.get(place.text, BOOL) != BOOL:
            return self._copy(place)
        if STEP_ID.fullmatch(place.text) and place.text not in _LITERALS:
            told = f'there is no variable "{place.text}" here{suggest(place.text, self._scope(place).offered())}'
            self.problems.append(Problem(place.path, told))
            return None
        return self._compile_text(place) if can_check_expressions() else None

    def _copy(self, place: _Place) -> Copy:
        name, found = place.text, place.variables[place.text]
        if name not in place.available:
            self.problems.append(Problem(place.path, place.explain(name)))
        elif place.wanted is not None and DYN != found != place.wanted.type_name and place.wanted.type_name:
            wanted = with_article(place.wanted.type_name)
            told = f'expected {wanted}, because {place.wanted.because}; "{name}" is {with_article(found)}'
            self.problems.append(Problem(place.path, told))
        return Copy(name=name)

    def _compile_text(self, place: _Place) -> Program | None:
        try:
            program = self._expressions.compile(place.text, scope=self._scope(place), wanted=place.wanted)
        except MistakesError as error:
            self.problems.extend(Problem(place.path, mistake) for mistake in error.mistakes)
            return None
        for name in sorted({name.removeprefix(RAN) for name in program.variables} - place.available):
            line, column = _first_place_of(name, place.text)
            self.problems.append(Problem(place.path, f"{place.explain(name)}{excerpt(place.text, line, column)}"))
        return program

    def _scope(self, place: _Place) -> Scope:
        return Scope(container=place.container, variables=place.variables, types=self.types, available=place.available)

    def _explain_order(self, name: str, index: int) -> str:
        step = self.definition.steps[index]
        if name == step.id:
            return f'"{name}" is this step itself: its output is not there before it is executed'
        known = ", ".join(sorted({INPUT, *(self.ancestors[index] if self.ancestors is not None else ())}))
        places = {other.id: place for place, other in enumerate(self.definition.steps)}
        if self.ancestors is not None and step.id in self.ancestors[places[name]]:
            return f'"{name}" comes after "{step.id}", so it is not there yet; there is: {known}'
        return f'"{name}" is not there yet: it does not come before "{step.id}"; add "{name}" to its `after`; there is: {known}'

    def _wanted(self, type_name: str, because: str) -> Wanted | None:
        return Wanted(type_name=type_name, because=because) if self._known(type_name) != DYN else None

    def _known(self, type_name: str) -> str:
        return type_name if type_name and self.types.find(type_name) is not None else DYN

    def _package_of(self, type_name: str) -> str:
        found = self.types.find(type_name) if type_name else None
        return str(found.DESCRIPTOR.file.package) if found is not None else ""


def _first_place_of(name: str, text: str) -> tuple[int, int]:
    """Line and column, from 1."""
    found = re.search(rf"(?<![.\w])(?:ran\.)?{re.escape(name)}\b", text)
    if found is None:
        return 0, 0
    line = text.count("\n", 0, found.start()) + 1
    return line, found.start() - (text.rfind("\n", 0, found.start()) + 1) + 1
