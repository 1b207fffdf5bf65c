"""Kinds in the graph: no saga may come to a point where it can go neither forward nor back (R9)."""

import pytest

from participant_sdk.definitions.graph import ancestors_of
from participant_sdk.definitions.kinds import find_kind_problems
from saga.v1 import saga_pb2

KINDS = {"C": "COMPENSATABLE", "O": "READ_ONLY", "P": "PIVOT", "R": "RETRIABLE", "B": "BEST_EFFORT", "_": "UNSPECIFIED"}


def definition(text: str) -> saga_pb2.SagaDefinition:
    """Steps by "id:KIND<predecessor,predecessor"; without `<` after the one before."""
    made = saga_pb2.SagaDefinition()
    for part in text.split():
        name, _, rest = part.partition(":")
        kind, has_order, before = rest.partition("<")
        step = made.steps.add(id=name, kind=saga_pb2.StepKind.Value(f"STEP_KIND_{KINDS[kind]}"))
        if has_order:
            step.after.SetInParent()
            step.after.step_ids.extend(filter(None, before.split(",")))
    return made


def problems_of(text: str) -> list[tuple[str, str]]:
    made = definition(text)
    return [(problem.field, problem.description) for problem in find_kind_problems(made, ancestors_of(made))]


@pytest.mark.parametrize(
    "text",
    [
        "a:C b:C",
        "a:_ p:P r:R",
        "a:C b:C< p:P<a,b r:R s:R<p",
        "p:P",
        "p:P r:R",
        "a:C r:R",
        "r:R s:R<",
        "a:C b:C< r:R<a,b s:R<a,b",
        "o:O< b:B< a:C< p:P<a r:R o2:O<p b2:B<p o3:O< b3:B<",
        "a:C p:P b:B o:O r:R",
        "b:B r:R o:O",
    ],
)
def test_kinds_that_fit_are_accepted(text: str) -> None:  # R9
    assert problems_of(text) == []


@pytest.mark.parametrize(
    ("text", "index", "told"),
    [
        ("p:P q:P", 1, '"q" is a PIVOT, but "p" is one already'),
        ("p:P a:C", 1, '"a" is COMPENSATABLE and comes after the pivot "p", where nothing can be undone any more; move it before "p"'),
        ("p:P a:_", 1, '"a" is COMPENSATABLE and comes after the pivot "p"'),
        ("a:C p:P<", 0, '"a" is COMPENSATABLE and comes beside the pivot "p"'),
        ("a:C p:P<", 0, 'add "a" to the `after` of "p", or make it RETRIABLE'),
        ("r:R p:P", 0, '"r" is RETRIABLE, must succeed in the end, and comes before the pivot "p"'),
        ("p:P r:R<", 1, 'comes beside the pivot "p", after which alone that is sure; add "p" to its `after`'),
        ("a:C r:R b:C", 1, 'but these COMPENSATABLE steps do not come before it: "b"; add them to its `after`, or make them RETRIABLE'),
        ("a:C b:C< r:R<a", 2, 'do not come before it: "b"'),
        ("a:C b:_< r:R<", 2, '"a", "b"'),
    ],
)
def test_kind_in_a_wrong_place_is_told(text: str, index: int, told: str) -> None:  # R9
    (problem,) = problems_of(text)
    assert problem[0] == f"definition.steps[{index}].kind"
    assert told in problem[1]


def test_every_kind_in_a_wrong_place_is_told_at_once() -> None:
    assert [field for field, _ in problems_of("r:R p:P a:C b:C")] == [f"definition.steps[{index}].kind" for index in (0, 2, 3)]
    assert len(problems_of("p:P q:P r:P")) == 2
