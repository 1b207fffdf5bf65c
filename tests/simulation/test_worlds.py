"""Whole worlds in virtual time: the real coordinator and the real SDK, and everything that can go wrong between them."""

import importlib.util
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.budget import BUDGET, budget
from tests.processes import ROOT, python_environment
from tests.simulation.command import Outcome, live, main, story
from tests.simulation.journal_of_world import Deed
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.options import Options, drawn

MUTANT_WORLDS = ("--seeds", "1:80")
"""The budget within which every deliberate bug must be found."""
SMALL_WORLDS = ("--seeds", "1:5", "--set", "sagas=30")
"""Tried first: most bugs are seen there in half of the time."""
SEEN_IN = {
    "nothing-withdrawn": 14, "unsealed-rejection-believed": 2, "null-compensation-not-sealed": 8, "rejection-sealed-in-word-only": 2,
    "started-taken-for-nothing": 2, "effect-forgotten-after-a-fault": 2, "executed-after-its-undo": 3, "lease-without-end": 7,
    "broken-stream-taken-for-not-sent": 14,
}  # fmt: skip
"""The others, and a world in which each was seen when this was written: tried first, too."""


def keeps_every_promise(options: Options) -> Outcome:
    """What became of that world, in which something was done."""
    outcome = live(options)
    if outcome.violations:
        pytest.fail(story(outcome))
    assert outcome.deeds[Deed.DO] > 0
    return outcome


@pytest.mark.parametrize("seed", range(1, 17, 6))
def test_known_worlds_keep_every_promise(seed: int) -> None:  # P1, P2, P3, P4, R5, R9, R10, R12, R14, R16, R18, R19, R24, R25, R29, R33
    """Known ones, so that a change that breaks one is seen where it is made: 300 sagas. `make sim` lives through fresh ones."""
    keeps_every_promise(drawn(seed))


@pytest.mark.full
@pytest.mark.parametrize("first", range(1000, 1000 + budget(50), 5))
def test_many_known_worlds_keep_every_promise(first: int) -> None:  # P1, P2, P3, P4
    for seed in range(first, first + 5):
        keeps_every_promise(drawn(seed))


@pytest.mark.full
@pytest.mark.parametrize("block", range(budget(4)))
def test_fresh_worlds_keep_every_promise(block: int) -> None:  # P1, P2, P3, P4
    """Worlds that nobody has seen before, five in a block; a failure says its seed and its story."""
    for _ in range(5):
        keeps_every_promise(drawn(random.randrange(2**32)))


def test_world_in_which_nothing_goes_wrong_completes_and_undoes_sagas() -> None:
    calm = Options(
        seed=1, lost_requests=0, lost_replies=0, repeated_requests=0, delayed=0, lost_client_calls=0, repeated_starts=0, partitions=0,
        coordinator_crashes=0, commit_crashes=0, participant_crashes=0, slow_commits=0, failing_commits=0, transient_failures=0,
        postponements=0, slow_handlers=0, verbs=0,
    )  # fmt: skip
    outcome = keeps_every_promise(calm)
    assert outcome.sagas == calm.sagas
    assert outcome.deeds[Deed.DO] > outcome.deeds[Deed.UNDO] > 0


@pytest.mark.full
def test_same_seed_is_the_same_world_in_every_process() -> None:
    """The order of sets, which differs from process to process, decides nothing. Two coordinators, calls in frames."""
    world = replace(drawn(14), sagas=12)
    assert (world.nodes, world.framed) == (2, 1.0)
    command = "from dataclasses import replace; from tests.simulation.command import live; from tests.simulation.options import drawn; "
    command += f"print(live(replace(drawn(14), sagas={world.sagas})).fingerprint)"
    said = {
        subprocess.run(
            [sys.executable, "-c", command], env=python_environment({"PYTHONHASHSEED": seed}), cwd=ROOT, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {live(world).fingerprint.encode() + os.linesep.encode()}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_deliberate_bug_stands_in_the_code_of_today(mutant: Mutant) -> None:
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).read_text(encoding="utf-8").count(mutant.old) == 1, (
        f"{mutant.name} is to change a text that {mutant.module} has once"
    )


@pytest.mark.full
@pytest.mark.parametrize("mutant", MUTANTS[:: max(1, round(1 / BUDGET))], ids=lambda mutant: mutant.name)
def test_deliberate_bug_is_found(mutant: Mutant) -> None:
    first = ("--seeds", str(SEEN_IN[mutant.name])) if mutant.name in SEEN_IN else SMALL_WORLDS
    for worlds in (first, MUTANT_WORLDS):
        command = [sys.executable, "-m", "tests.simulation", "--mutant", mutant.name, *worlds]
        done = subprocess.run(command, env=python_environment(), cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            break
    assert done.returncode == 1, f"{mutant.name} breaks {mutant.rule}, and nothing was noticed: {done.stdout} {done.stderr}"
    assert ": saga " in done.stdout, f"expected a broken promise, found {done.stdout} {done.stderr}"


@pytest.mark.full
def test_story_of_a_broken_promise_is_small_and_can_be_seen_again() -> None:
    command = [sys.executable, "-c", "import sys; from tests.simulation.mutants import *; infect(BY_NAME['unknown-not-compensated']);"
               "from tests.simulation.command import main; sys.exit(main(['--seeds', '1:10', '--set', 'sagas=30']))"]  # fmt: skip
    done = subprocess.run(command, env=python_environment(), cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "smallest world: seed=" in done.stdout
    assert "again: make sim SEEDS=" in done.stdout
    assert len(done.stdout.splitlines()) < 150


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "many"], "argument --seeds"),
        (["--mutant", "unheard-of"], "argument --mutant"),
        (["--set", "unheard_of=1"], "expected one of seed, sagas"),
    ],
)
def test_command_that_is_misspelt_is_refused_in_words(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err


def test_time_that_is_over_begins_no_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1:1000", "--minutes", "0.0000001"]) == 0
    assert capsys.readouterr().out.startswith("0 worlds")
