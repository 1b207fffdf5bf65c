"""The parts of the documentation that are made from the code: the diagrams of the transitions, the tests of rules and promises."""

import ast
import os
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from coordinator.core.events import StepResolved, StepRetried
from coordinator.core.transitions import PERSON_TRANSITIONS, SAGA_TRANSITIONS, STEP_TRANSITIONS
from coordinator.core.values import StepStatus
from participant_sdk.testing.conformance import RULES as CONFORMANCE_RULES
from tests.simulation.mutants import MUTANTS

ROOT = Path(__file__).parent.parent
TESTS_SHOWN_MAX = 6
"""Tests named per rule; more are counted."""

PROMISES = range(1, 7)
"""P1 to P6 of docs/guarantees.md."""

RULES = {
    1: "A round carries one key and one input, and rises only after one that had no effect; attempt numbers never restart",
    2: "A saga id is a UUID that the client may make, so that a start can be resent",
    3: "A step's input is evaluated once and journalled; fingerprints are taken over the coordinator's own serialisation",
    4: "Start keys are unique per definition; a losing start is answered with the winner",
    5: "A rejection is clean only if it is sealed or nothing before it is in doubt; any other is UNKNOWN and compensated",
    6: "What each gRPC status means is one table; whatever is not clear is unknown",
    7: "Policies decide about retries, never about what is known; what was not sent is no attempt",
    8: "A refusal to compensate is a failed attempt, never believed",
    9: "Kinds have their places in the graph: compensatable steps before the pivot, retriable ones after it",
    10: "While the pivot may have taken effect nothing turns the saga back",
    11: "What must succeed and is refused opens an incident at once, and so does an expression that fails past the point of no return",
    12: "Turning back awaits what is in flight, then undoes in inverse order whatever may have taken effect",
    13: "Limits bound execution up to the point of no return only; recovery in either direction has its own",
    14: "A step runs after its predecessors succeeded, were left out, or are best-effort and at rest",
    15: "A compensation that is exhausted opens an incident; other paths go on; FAILED is no end",
    16: "A hook runs once at the end, durably; its failure is an incident of its own and changes no outcome",
    17: "Nobody says how a step ends while its participant may still say it; what is said later changes nothing",
    18: "The barrier's verdict is a pure function of row and request",
    19: "Effects outside the database are marked before and stored after",
    20: "A compensation that knows the output runs, with a row or without",
    21: "A key older than what the participant remembers is refused, never run",
    22: "Same key, other payload is refused; concurrent duplicates run once",
    23: "Without a database there is no barrier, and the description says so",
    24: "A step is finished later by the coordinator's token: early it is kept, late it is refused and recorded, expired it is UNKNOWN",
    25: "Every answer waits for the commit that it was derived from",
    26: "A commit whose outcome is not known is settled by reading it again; lost ownership drops all memory",
    27: "A conflict on an event is lost ownership",
    28: "One bad row never fails its batch for ever",
    29: "What is owed may have started: recovery puts it in doubt",
    30: "The journal's payload is the public event",
    31: "PostgreSQL: shards are leased by the database's clock and given up by the node's own, and the fence comes first",
    32: "SQLite is owned by a file lock, written by one writer; a deleted database is a clear death",
    33: "Watching: subscribe, then read, no gaps",
}


def rules_table() -> str:
    """Markdown: each rule with the tests that cite it."""
    found = citations("R")
    lines = ["| | Rule | Proven by |", "|---|---|---|"]
    for number, summary in RULES.items():
        tests = found.get(number, [])
        shown = "<br>".join(f"`{test}`" for test in tests[:TESTS_SHOWN_MAX])
        more = f"<br>and {len(tests) - TESTS_SHOWN_MAX} more" if len(tests) > TESTS_SHOWN_MAX else ""
        lines.append(f"| R{number} | {summary} | {shown}{more} |")
    return "\n".join(lines)


def proofs(promise: int) -> str:
    """Markdown: the tests that cite a promise."""
    return "\n".join(f"- `{test}`" for test in citations("P").get(promise, []))


def mutants_table() -> str:
    """Markdown: each deliberate bug that the simulation must find, by the rule that it breaks."""
    found = defaultdict(list)
    for mutant in MUTANTS:
        found[mutant.rule].append(mutant.name.replace("-", " "))
    rules = sorted(found, key=lambda rule: (rule[0], int(rule[1:])))
    return "\n".join(["| Breaks | Deliberate bugs |", "|---|---|", *(f"| {rule} | {', '.join(found[rule])} |" for rule in rules)])


def conformance_table() -> str:
    """Markdown: the rules of `saga verify`."""
    rows = [f"| `{rule.name}` | {rule.title} | {', '.join(rule.ways)} | {', '.join(rule.cites)} |" for rule in CONFORMANCE_RULES]
    return "\n".join(["| Rule | What is seen if it is kept | Called | [Stands for](rules.md) |", "|---|---|---|---|", *rows])


def citations(letter: str) -> dict[int, list[str]]:
    """Rules (R) or promises (P) → tests whose lines cite them, those over real sockets and processes first."""
    found: dict[int, list[str]] = defaultdict(list)
    for name, body in _tests():
        for number in sorted({int(match) for match in re.findall(rf"\b{letter}(\d{{1,2}})\b", body)}):
            found[number].append(name)
    return found


@cache
def _tests() -> list[tuple[str, str]]:
    """Every test: its name, and its text."""
    found: list[tuple[str, str]] = []
    for file in sorted((ROOT / "tests").rglob("test_*.py"), key=lambda path: ("integration" not in path.parts, str(path))):
        source = file.read_text()
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append((f"{file.relative_to(ROOT / 'tests')}::{node.name}", "\n".join(lines[node.lineno - 1 : node.end_lineno])))
    return found


def transition_diagrams() -> str:
    """Mermaid: the statuses of sagas and steps; and what a person may make of a step."""
    saga: dict[tuple[str, str], list[str]] = {}
    for (before, fact), afters in SAGA_TRANSITIONS.items():
        for after in sorted(afters):
            saga.setdefault((before.name if before else "[*]", after.name), []).append(fact.__name__)
    step: dict[tuple[str, str], list[str]] = {
        ("[*]", "WAITING"): [],
        ("WAITING", "EXECUTING"): ["its predecessors are done"],
        ("WAITING", "SKIPPED"): ["its condition is false"],
        ("WAITING", "REJECTED"): ["its expression fails"],
    }
    for (status, fact), reached in STEP_TRANSITIONS.items():
        if status is not reached:
            step.setdefault((status.name, reached.name), []).append(fact.__name__)
    step["ACCEPTED", "UNKNOWN"].append("the saga turned back")
    for undone in ("SUCCEEDED", "UNKNOWN"):
        step[undone, "COMPENSATING"] = ["the saga turned back and its successors are undone"]
    ends = ["    COMPLETED --> [*]", "    COMPENSATED --> [*]"]
    blocks = ["```mermaid", "stateDiagram-v2", *_arrows(saga), *ends, "```", "", "```mermaid", "stateDiagram-v2", *_arrows(step), "```"]
    return "\n".join([*blocks, "", *_person_table()])


def _arrows(labels: dict[tuple[str, str], list[str]]) -> list[str]:
    return [f"    {before} --> {after}{': ' if said else ''}{' or '.join(said)}" for (before, after), said in labels.items()]


def _person_table() -> list[str]:
    rows = ["| A person may | of a step that is | so that it is |", "|---|---|---|"]
    for fact, verb in ((StepRetried, "have it tried again"), (StepResolved, "say how it ended")):
        by_before: dict[StepStatus, list[str]] = {}
        for before, after in sorted(PERSON_TRANSITIONS[fact]):
            by_before.setdefault(before, []).append(after.name)
        rows.extend(f"| {verb} | {before.name} | {' or '.join(afters)} |" for before, afters in by_before.items())
    return rows


def verbs_table() -> str:
    """What a saga answers to every verb, in every situation."""
    return f"```text\n{(ROOT / 'tests/unit/core/verbs.txt').read_text().rstrip()}\n```"


def with_part(document: Path, made: str, *, old: str) -> str:
    """The text of a document with one of its generated parts as it should be; written only when UPDATE_DOCS asks for it."""
    text = document.read_text()
    assert text.count(old) == 1
    wanted = text.replace(old, made)
    if os.environ.get("UPDATE_DOCS"):
        document.write_text(wanted)
    return wanted


def between(text: str, begin: str, end: str, replacement: str | None = None) -> str:
    """What stands between two marker lines, or the whole text with that replaced."""
    head, begun, rest = text.partition(begin)
    marker, newline, rest = rest.partition("\n")
    inner, ended, tail = rest.partition(end)
    assert all((begun, newline, ended)), f"the markers {begin!r} and {end!r} are there"
    if replacement is None:
        return inner.strip("\n")
    return f"{head}{begun}{marker}\n{replacement}\n{ended}{tail}"
