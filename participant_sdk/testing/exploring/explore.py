"""Exploring a saga: every crash point of the coordinator and every fault on the way to participants, one after the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from participant_sdk.participant import Participant
from participant_sdk.payloads import Payload
from participant_sdk.testing.errors import KitError
from participant_sdk.testing.exploring.cases import Case, cases_of, courses_of, parse_case
from participant_sdk.testing.exploring.living import Invariant, Life, Subject, live_case
from participant_sdk.testing.exploring.report import Exploration, PromiseBrokenError
from participant_sdk.testing.plans import Plan, definition_of
from participant_sdk.testing.serving import Part, Servicer

WORLDS_MAX: Final = 2_000


def explore(
    plan: Plan,
    inputs: Payload | Sequence[Payload],
    *parts: Part,
    invariant: Invariant | None = None,
    may_need_person: bool = False,
    faults: int = 1,
    worlds_max: int = WORLDS_MAX,
    progress: Callable[[int, int], None] | None = None,
    only: str = "",
) -> Exploration:
    """Lives through a saga again and again, each time in a world in which something else goes wrong, and checks every promise in each.

    Courses are what a saga does without a fault: with each of `inputs`, and with every step refused that may be. In each course every
    call to a participant is lost, late, doubled, delayed or cut by a crash on either side, and the coordinator dies or is asked to cancel
    at each of its commits; with `faults=2`, every two of these together. Then there are one effect per key, an undo only after its
    effect and nothing after it, one outcome, and no effect that stands in a saga that was undone.

    `parts`: as for `SagaKit.serve`; participants come as functions that make them, since every world needs its own. `invariant`: looks at
    the end of each world whether what only you know is true; plain or async; `run.participant(Inventory)` is what to look into.
    `may_need_person`: whether a saga may end with an open incident. `worlds_max`: the bound; what is left out is counted. `progress`:
    told how many worlds of how many are done. `only`: the world that a report named, alone.

    Raises PromiseBrokenError with the smallest world in which something was broken; KitError for what cannot be explored.
    """
    given = (inputs,) if not isinstance(inputs, Sequence) else tuple(inputs)
    _check_parts(parts)
    if not given or faults < 1 or worlds_max < 1:
        raise KitError("explore(…) needs at least one input, one fault and one world")
    subject = Subject(definition=definition_of(plan), inputs=given, parts=parts, invariant=invariant, may_need_person=may_need_person)
    search = _Search(subject, worlds_max, progress)
    if only:
        search.live_only(parse_case(only))
    else:
        search.live_all(faults)
    exploration = search.result()
    if exploration.broken:
        raise PromiseBrokenError(exploration)
    return exploration


@dataclass(slots=True)
class _Search:
    subject: Subject
    worlds_max: int
    progress: Callable[[int, int], None] | None
    worlds: int = 0
    courses: list[Life] = field(default_factory=list)
    broken: list[Life] = field(default_factory=list)
    left_out: int = 0

    def live_only(self, case: Case) -> None:
        """That world alone."""
        if case.input >= len(self.subject.inputs):
            raise KitError(f"there are {len(self.subject.inputs)} inputs, and that world starts with number {case.input + 1}")
        life = self._live(case, total=1)
        if life.never_happened:
            raise KitError(f"that world has no opportunity for {', '.join(map(str, life.never_happened))}")

    def live_all(self, faults: int) -> None:
        """Courses first, then one fault in each, then two: the first level at which something is broken has the smallest worlds."""
        every = list(courses_of(self.subject.definition, len(self.subject.inputs)))
        self.courses = [self._live(case, total=len(every)) for case in every[: self.worlds_max]]
        self.left_out += len(every) - len(self.courses)
        for level in range(1, faults + 1):
            if self.broken:
                return
            self._live_level([case for course in self.courses for case in cases_of(course.case, course.seen, faults=level)])

    def result(self) -> Exploration:
        """What was found."""
        smallest_first = sorted(self.broken, key=lambda life: (len(life.case.faults), life.length, str(life.case)))
        return Exploration(
            title=self.subject.definition.title,
            worlds=self.worlds,
            courses=len(self.courses),
            left_out=self.left_out,
            broken=tuple(smallest_first),
        )

    def _live_level(self, cases: list[Case]) -> None:
        room = self.worlds_max - self.worlds
        self.left_out += max(0, len(cases) - room)
        total = self.worlds + min(len(cases), room)
        for case in cases[: max(0, room)]:
            self._live(case, total=total)

    def _live(self, case: Case, *, total: int) -> Life:
        life = live_case(self.subject, case)
        self.worlds += 1
        if life.broken:
            self.broken.append(life)
        if self.progress is not None:
            self.progress(self.worlds, total)
        return life


def _check_parts(parts: Sequence[Part]) -> None:
    for one in _flat(parts):
        if isinstance(one, (Participant, Servicer)):
            what = type(one).__name__ if isinstance(one, Participant) else one.name
            raise KitError(f"every world needs a participant of its own: give explore(…) a function that makes {what}, not {what} itself")


def _flat(parts: Sequence[Part]) -> Iterator[object]:
    for part in parts:
        yield from part if isinstance(part, (list, tuple)) else (part,)
