"""The generated parts of the documentation are what the code says. UPDATE_DOCS=1 writes them again."""

import os
import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from coordinator.cli.app import main
from coordinator.settings import load_settings
from tests.documents import (
    PROMISES,
    ROOT,
    RULES,
    between,
    citations,
    conformance_table,
    mutants_table,
    proofs,
    rules_table,
    transition_diagrams,
    verbs_table,
)

GENERATED = [
    ("docs/ARCHITECTURE.md", "<!-- transitions:", "<!-- end of transitions -->", transition_diagrams),
    ("docs/rules.md", "<!-- rules:", "<!-- end of rules -->", rules_table),
    ("docs/operators.md", "<!-- verbs:", "<!-- end of verbs -->", verbs_table),
    ("docs/testing.md", "<!-- conformance:", "<!-- end of conformance -->", conformance_table),
    ("docs/guarantees.md", "<!-- bugs:", "<!-- end of bugs -->", mutants_table),
    *(("docs/guarantees.md", f"<!-- P{n}:", f"<!-- end of P{n} -->", partial(proofs, n)) for n in PROMISES),
]


@pytest.mark.parametrize(("name", "begin", "end", "made"), GENERATED, ids=[f"{name} {mark.strip('<!-:')}" for name, mark, *_ in GENERATED])
def test_generated_part_is_up_to_date(name: str, begin: str, end: str, made: object) -> None:
    assert callable(made)
    file = ROOT / name
    wanted = made()
    if os.environ.get("UPDATE_DOCS"):
        file.write_text(between(file.read_text(), begin, end, wanted))
    assert between(file.read_text(), begin, end) == wanted, "run the tests once with UPDATE_DOCS=1"


def test_every_rule_is_cited_by_a_test() -> None:
    found = citations("R")
    assert [number for number in RULES if not found.get(number)] == [], "claimed in docs/rules.md, and no test cites it"


def test_every_promise_is_cited_by_tests_over_real_sockets_or_files() -> None:
    found = citations("P")
    assert [promise for promise in PROMISES if not any("integration/" in test for test in found.get(promise, []))] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    examples = [path for path in (ROOT / "examples").rglob("*.md") if "node_modules" not in path.parts]
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *examples]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


def test_documents_name_no_machine_and_no_registry() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert str(Path.home()) not in document.read_text()


def _commands_in(document: Path) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL)
    lines = [line.partition("   #")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("saga ")]


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name)
def test_commands_in_a_document_exist(document: Path) -> None:
    for _, verb, *words in _commands_in(document):
        command = main.load_all().get(verb)
        assert command is not None, f"there is no `saga {verb}`"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert [word for word in words if word.startswith("--") and word not in known] == [], f"saga {verb}"


def test_settings_file_of_the_operators_page_is_read(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/operators.md").read_text(), re.DOTALL)
    (tmp_path / "saga.toml").write_text(shown)
    settings = load_settings(file=tmp_path / "saga.toml", environment={}, flags={})
    limits = settings.limits_of("payments")
    assert settings.participant_targets == {"payments": "dns:///payments:50051"}
    assert (limits.concurrency, limits.rate_per_second, limits.circuit_failures) == (16, 50, 3)
    assert (limits.circuit_open_s, limits.circuit_open_s_max) == (2, 60)
    assert settings.limits_of("other").concurrency == 128


def test_commands_of_the_operators_page_are_found() -> None:
    assert len(_commands_in(ROOT / "docs/operators.md")) == 5
