"""The table of situations and verbs: what a saga answers to everything that an operator or a participant can ask, however it stands."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import (
    Fact,
    IncidentClosed,
    LateOutcome,
    OutputResolved,
    SagaPaused,
    SagaResumed,
    SagaTerminated,
    SagaTurnedBack,
    StepCompletedEarly,
    StepHeartbeat,
    StepPolicyChanged,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.inputs import (
    Acknowledge,
    Cancel,
    ChangePolicy,
    Command,
    CompleteStep,
    Heartbeat,
    Pause,
    PolicyChange,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
)
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import MICROS_PER_SECOND, Payload, StepId
from tests.builders import Story, rejected, succeeded
from tests.unit.core.transcript_reading import read_input, read_plan

ASKED_AT: Final = 10
"""Second at which the verb is used; everything before it has happened."""
SAID: Final = Payload("shop.v1.Done", b"said")
OTHER: Final = Payload("shop.v1.PlaceOrder", b"other")
SITUATION_WIDTH: Final = 27
CELL_WIDTH: Final = 18

LEGEND: Final = """\
What a saga answers, however it stands (each situation is told in situations.txt). In capitals: it is refused, and nothing changes. A dash:
it is taken, and nothing had to change. "kept": counts when the call has come to rest. "late": recorded in the history, and changes nothing.
"""

TABLES: Final[dict[str, dict[str, Callable[[StepId], Command]]]] = {
    "The saga": {
        "Cancel": lambda _: Cancel(),
        "Pause": lambda _: Pause(),
        "Resume": lambda _: Resume(),
        "Terminate": lambda _: Terminate(),
        "ResolveOutput": lambda _: ResolveOutput(output=SAID),
        "Acknowledge #1": lambda _: Acknowledge(incident_id=1),
    },
    "The step, tried again": {
        "RetryStep": lambda step_id: RetryStep(step_id=step_id),
        "… other input": lambda step_id: RetryStep(step_id=step_id, input=OTHER),
        "ChangePolicy": lambda step_id: ChangePolicy(step_id=step_id, change=PolicyChange(execute_retry=RetryPolicy(attempts_max=9))),
    },
    "The step, resolved": {
        "… succeeded": lambda step_id: ResolveStep(step_id=step_id, resolution=ResolvedSucceeded(SAID)),
        "… skipped": lambda step_id: ResolveStep(step_id=step_id, resolution=ResolvedSkipped()),
        "… rejected": lambda step_id: ResolveStep(step_id=step_id, resolution=ResolvedRejected()),
        "… compensated": lambda step_id: ResolveStep(step_id=step_id, resolution=ResolvedCompensated()),
    },
    "The step, by its token": {
        "Complete": lambda step_id: CompleteStep(step_id=step_id, round=1, result=succeeded()),
        "… refused": lambda step_id: CompleteStep(step_id=step_id, round=1, result=rejected()),
        "… sealed": lambda step_id: CompleteStep(step_id=step_id, round=1, result=rejected(sealed=True)),
        "Heartbeat": lambda step_id: Heartbeat(step_id=step_id, round=1, time_limit_us=7_200 * MICROS_PER_SECOND),
    },
}
"""What can be asked, in tables that fit on a page."""

ANSWERS: Final[dict[type[Fact], str]] = {
    SagaPaused: "paused",
    SagaResumed: "resumed",
    SagaTerminated: "terminated",
    OutputResolved: "resolved",
    StepRetried: "retried",
    StepPolicyChanged: "changed",
    StepResolved: "resolved",
    StepSucceeded: "succeeded",
    StepRejected: "rejected",
    StepUnknown: "unknown",
    StepCompletedEarly: "kept",
    LateOutcome: "late",
    StepHeartbeat: "longer",
    SagaTurnedBack: "turns back",
    TurnBackRequested: "shall turn back",
    IncidentClosed: "closed",
}
"""What a fact says to whoever asked. Of several the one that stands first here; the others follow from it."""


class Situation(NamedTuple):
    """How a saga stands, and the step that is spoken of."""

    name: str
    step_id: StepId
    story: Story


def read_situations(path: Path) -> Iterator[Situation]:
    """Every situation of the file, freshly told."""
    for block in path.read_text().split("\n= ")[1:]:
        title, *lines = block.splitlines()
        name, _, step_id = title.partition(" / ")
        story = Story(read_plan(lines))
        happenings = [line.removeprefix("> ").split() for line in lines if line.startswith("> ")]
        for second, words in enumerate(happenings):
            story.feed(read_input(words), second)
        assert len(happenings) <= ASKED_AT
        yield Situation(name, StepId(step_id), story)


def write_tables(path: Path) -> str:
    """All tables."""
    return "\n".join([LEGEND, *(_write_table(path, title, verbs) for title, verbs in TABLES.items())])


def _write_table(path: Path, title: str, verbs: dict[str, Callable[[StepId], Command]]) -> str:
    rows = [f"{title:<{SITUATION_WIDTH}}" + "".join(f"{verb:<{CELL_WIDTH}}" for verb in verbs)]
    answers = {verb: [_answer(situation, make) for situation in read_situations(path)] for verb, make in verbs.items()}
    for place, situation in enumerate(read_situations(path)):
        rows.append(f"{situation.name:<{SITUATION_WIDTH}}" + "".join(f"{answers[verb][place]:<{CELL_WIDTH}}" for verb in verbs))
    return "\n".join(row.rstrip() for row in rows) + "\n"


def _answer(situation: Situation, make: Callable[[StepId], Command]) -> str:
    try:
        facts = situation.story.feed(make(situation.step_id), ASKED_AT)
    except CommandRefusedError as refused:
        return refused.refusal.name.replace("_", " ")
    if not facts:
        return "-"
    said = next(answer for kind, answer in ANSWERS.items() if any(isinstance(fact, kind) for fact in facts))
    rounds = [fact.round for fact in facts if isinstance(fact, StepRetried)]
    return f"{said}, {'same' if rounds == [1] else 'new'} key" if rounds else said
