"""The documentation as a site: it is built without a warning, asks no other host for anything, and leaves nothing out."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli.app import main
from docs._extensions.public_modules import PUBLIC_MODULES
from saga.v1 import coordinator_pb2, operator_pb2, participant_pb2, saga_pb2
from tests.documents import ROOT
from tests.processes import python_environment

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("site"), pytest.mark.timeout(400)]

BUILD_TIME_LIMIT_S = 300
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc="(?:https?:)?//|<link[^>]*rel="[^"]*(?:stylesheet|preconnect|font)[^>]*href="(?:https?:)?//"""
)
LOADED_BY_STYLE = re.compile(r"""url\(["']?(?:https?:)?//|@import\s+["'](?:https?:)?//""")
NOT_PAGES = {"_extensions", "_static"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as by `make docs`: a link or a reference that leads nowhere is a warning, and a warning fails."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(folder / "read"),
        "docs",
        str(folder / "html"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=python_environment(), check=False, capture_output=True, text=True, timeout=BUILD_TIME_LIMIT_S
    )
    assert done.returncode == 0, f"is sphinx there? make docs\n{done.stdout}{done.stderr}"
    return folder / "html"


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    pages = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")]
    named = (site / "index.html").read_text()
    for page in pages:
        assert (site / page).exists()
        assert page.name == "index.html" or f'href="{page}"' in named, f"{page} is in no toctree that the index reaches"


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert LOADED.search(page.read_text()) is None, page
    for style in site.rglob("*.css"):
        assert LOADED_BY_STYLE.search(style.read_text()) is None, style


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    for module in PUBLIC_MODULES:
        page = (site / "reference" / f"{module}.html").read_text()
        assert [name for name in importlib.import_module(module).__all__ if f'id="{module}.{name}"' not in page] == []


def test_every_message_of_the_contract_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "protos.html").read_text()
    files = [each.DESCRIPTOR for each in (coordinator_pb2, operator_pb2, participant_pb2, saga_pb2)]
    names = [name for file in files for name in (*file.message_types_by_name, *file.enum_types_by_name, *file.services_by_name)]
    assert [name for name in names if f'id="saga.v1.{name.lower()}"' not in page and f'id="saga-v1-{name.lower()}"' not in page] == []


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text()
    assert [name for name in main.load_all() if f'id="saga-{name}"' not in page] == []
