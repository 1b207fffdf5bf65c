"""A sound definition as a table for terminals, as an object for programs, and as a picture for documents."""

from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.cli.definition_shape import short_enum_names
from participant_sdk.definitions.graph import predecessors_of
from saga.v1 import saga_pb2

_KIND_NAMES: Final = {number: name for name, number in short_enum_names(saga_pb2.StepKind.DESCRIPTOR).items()}
_KIND_STYLES: Final = {
    saga_pb2.STEP_KIND_PIVOT: "bold magenta",
    saga_pb2.STEP_KIND_RETRIABLE: "cyan",
    saga_pb2.STEP_KIND_BEST_EFFORT: "dim",
    saga_pb2.STEP_KIND_READ_ONLY: "dim",
}
_MERMAID_SHAPES: Final = {
    saga_pb2.STEP_KIND_COMPENSATABLE: ("[", "]"),
    saga_pb2.STEP_KIND_READ_ONLY: ("[/", "/]"),
    saga_pb2.STEP_KIND_PIVOT: ("{{", "}}"),
    saga_pb2.STEP_KIND_RETRIABLE: ("([", "])"),
    saga_pb2.STEP_KIND_BEST_EFFORT: (">", "]"),
}
_HOOKS: Final = (("on_success", "COMPLETED"), ("on_failure", "COMPENSATED"))


def kind_of(step: saga_pb2.StepDefinition) -> saga_pb2.StepKind.ValueType:
    """Its kind; COMPENSATABLE if none is given."""
    return step.kind or saga_pb2.STEP_KIND_COMPENSATABLE


def kind_name(step: saga_pb2.StepDefinition) -> str:
    """Example: "PIVOT"."""
    return _KIND_NAMES.get(kind_of(step), str(step.kind))


def point_of_no_return(definition: saga_pb2.SagaDefinition) -> str:
    """Where the saga can no longer turn back, in words (R9)."""
    pivot = next((step.id for step in definition.steps if kind_of(step) == saga_pb2.STEP_KIND_PIVOT), None)
    if pivot is not None:
        return f"when {pivot} has succeeded"
    retriable = [step.id for step in _in_graph_order(definition) if kind_of(step) == saga_pb2.STEP_KIND_RETRIABLE]
    if retriable:
        return f"when {' or '.join(retriable)} is due"
    return "none; until it is completed, the saga can turn back"


def render_definition(definition: saga_pb2.SagaDefinition) -> RenderableType:
    """The steps in the order of their graph, and where there is no way back."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("step", "kind", "after", "action", "takes → returns"):
        table.add_column(title, overflow="fold")
    has_conditions = any(step.when for step in definition.steps)
    if has_conditions:
        table.add_column("when", overflow="fold")
    package = definition.input_type.rpartition(".")[0]
    before = _predecessors_by_id(definition)
    for step in _in_graph_order(definition):
        kind = Text(kind_name(step), style=_KIND_STYLES.get(kind_of(step), ""))
        types = f"{_short(step.input_type, package)} → {_short(step.output_type, package)}"
        after = Text(", ".join(before[step.id]) or "(start)")
        table.add_row(Text(step.id), kind, after, Text(step.action), types, *([Text(_one_line(step.when))] if has_conditions else []))
    for name, hook in _hooks_of(definition):
        types = f"{_short(hook.input_type, package)} → {_short(hook.output_type, package)}"
        table.add_row(Text(name, style="italic"), "hook", "the end", Text(hook.action), types, *([""] if has_conditions else []))
    return Group(table, Text(f"no way back: {point_of_no_return(definition)}", style="dim"))


def definition_to_json(definition: saga_pb2.SagaDefinition) -> dict[str, object]:
    """The same for programs."""
    before = _predecessors_by_id(definition)
    return {
        "steps": [
            {
                "id": step.id,
                "kind": kind_name(step),
                "after": before[step.id],
                "action": step.action,
                "input_type": step.input_type,
                "output_type": step.output_type,
                "when": step.when,
            }
            for step in _in_graph_order(definition)
        ],
        "hooks": {name: hook.action for name, hook in _hooks_of(definition)},
        "point_of_no_return": point_of_no_return(definition),
    }


def to_mermaid(definition: saga_pb2.SagaDefinition) -> str:
    """A flowchart for documents. Kinds are told by shapes: a box can be undone, a hexagon is the pivot, round ends must succeed."""
    names = {step.id: f"s{index}" for index, step in enumerate(definition.steps)}  # "end" and others are words of Mermaid
    before = _predecessors_by_id(definition)
    lines = ["flowchart LR"]
    for step in _in_graph_order(definition):
        opening, closing = _MERMAID_SHAPES.get(kind_of(step), ("[", "]"))
        said = [step.id, kind_name(step)] + ([f"when {_one_line(step.when)}"] if step.when else [])
        lines.append(f'    {names[step.id]}{opening}"{"<br/>".join(map(_escaped, said))}"{closing}')
        arrow = "-.->" if kind_of(step) == saga_pb2.STEP_KIND_BEST_EFFORT else "-->"
        lines.extend(f"    {names[earlier]} {arrow} {names[step.id]}" for earlier in before[step.id])
    last = [names[step_id] for step_id in names if not any(step_id in ids for ids in before.values())]
    hooks = dict(_hooks_of(definition))
    for name, end in _HOOKS:
        if name in hooks:
            lines.append(f'    {end}(("{end}")) --> {name}["{name}<br/>{_escaped(hooks[name].action)}"]')
    if "on_success" in hooks:
        lines.extend(f"    {step} --> COMPLETED" for step in last)
    return "\n".join(lines)


def _in_graph_order(definition: saga_pb2.SagaDefinition) -> list[saga_pb2.StepDefinition]:
    """Each step after those before it; otherwise as they are listed."""
    place_of = {step.id: index for index, step in enumerate(definition.steps)}
    sorter = TopologicalSorter(_predecessors_by_id(definition))
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place_of.__getitem__)
        order += ready
        sorter.done(*ready)
    return [definition.steps[place_of[step_id]] for step_id in order]


def _predecessors_by_id(definition: saga_pb2.SagaDefinition) -> dict[str, list[str]]:
    return {step.id: before for step, before in zip(definition.steps, predecessors_of(definition), strict=True)}


def _hooks_of(definition: saga_pb2.SagaDefinition) -> Iterator[tuple[str, saga_pb2.HookDefinition]]:
    if definition.HasField("on_success"):
        yield "on_success", definition.on_success
    if definition.HasField("on_failure"):
        yield "on_failure", definition.on_failure


def _short(type_name: str, package: str) -> str:
    return type_name.removeprefix(f"{package}.") if package else type_name


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
