"""The generated parts of the documentation are what the code says. UPDATE_DOCS=1 writes them again."""

import os
import re
from pathlib import Path

import pytest

from tests.documents import ROOT, RULES, between, citations, rules_table, transition_diagrams

GENERATED = [
    ("docs/ARCHITECTURE.md", "<!-- transitions:", "<!-- end of transitions -->", transition_diagrams),
    ("docs/rules.md", "<!-- rules:", "<!-- end of rules -->", rules_table),
]


@pytest.mark.parametrize(("name", "begin", "end", "made"), GENERATED, ids=[row[0] for row in GENERATED])
def test_generated_part_is_up_to_date(name: str, begin: str, end: str, made: object) -> None:
    assert callable(made)
    file = ROOT / name
    wanted = made()
    if os.environ.get("UPDATE_DOCS"):
        file.write_text(between(file.read_text(), begin, end, wanted))
    assert between(file.read_text(), begin, end) == wanted, "run the tests once with UPDATE_DOCS=1"


@pytest.mark.parametrize("number", RULES)
def test_rule_is_cited_by_a_test(number: int) -> None:
    assert citations().get(number), f"R{number} is claimed in docs/rules.md, and no test cites it"


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for document in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


def test_documents_name_no_machine_and_no_registry() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert str(Path.home()) not in document.read_text()
