"""Stories as text: reads a plan and what happens to a saga, and writes down what the core made of it.

    saga limit=60s on_failure output_fails
    step reserve retry=3 timeout=10s limit=5m undo=2 undo_limit=1d
    step charge after reserve pivot
    step gift after reserve best_effort when_false

    0s > start
      1 SagaStarted deadline=60s; reached reserve
      RUNNING
      owes reserve execute#1
      wakes 60s
    1s > reply reserve execute 1 succeeded
    ...

Kinds of steps: read_only, pivot, retriable, best_effort; else compensatable. `when_false`: its condition is false; `unfit`: its input
cannot be evaluated; `no_undo`: it has no compensation. Hooks: on_success, on_failure; `hook_retry=1`: how often they are tried.

A line with `>` is an input: start [at=60s], reply STEP DIRECTION NUMBER [round=N] OUTCOME [CODE | DELAY] [sealed], complete STEP [round=N]
OUTCOME, beat STEP [LIMIT] [progress], wake, cancel WHO, pause WHO, resume WHO, terminate WHO, retry STEP [input], resolve STEP RESOLUTION,
policy STEP ATTEMPTS, output, acknowledge INCIDENT, crash. Lines indented below it are written by the test: events with their sequence and
the steps reached by them, the status of the saga, and what it owes from then on. Everything else is kept as it stands.
"""

from collections.abc import Iterator

from coordinator.core.errors import CommandRefusedError
from tests.builders import Story
from tests.unit.core.transcript_reading import read_input, read_plan, read_seconds
from tests.unit.core.transcript_writing import write_event, write_owed


def replayed(text: str) -> str:
    """The same story with what the core makes of it now."""
    told = [line for line in text.splitlines() if not line.startswith("  ")]
    story = Story(read_plan(told))
    written: list[str] = []
    for line in told:
        written.append(line)
        if ">" in line and not line.startswith("#"):
            written.extend(f"  {said}" for said in _happens(story, line))
    return "\n".join(written) + "\n"


def _happens(story: Story, line: str) -> Iterator[str]:
    when_text, _, what = line.partition(" > ")
    words = what.split()
    when = read_seconds(when_text)
    before = story.owed_calls(), story.wake_at()
    known = len(story.journal)
    if words[0] == "crash":
        story.crash()
    try:
        story.feed(read_input(words), when)
    except CommandRefusedError as refused:
        yield f"refused: {refused.refusal.name}"
    for event in story.journal[known:]:
        yield write_event(event)
    if len(story.journal) == known:
        yield "nothing"
    assert story.status is not None
    yield story.status.name
    if (story.owed_calls(), story.wake_at()) != before or words[0] == "crash":
        yield from write_owed(story)
