"""The public types of the SDK, as mypy and pyright see them: what is right is accepted, and misuse is refused where it stands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ACCEPTED = sorted((HERE / "accepted").glob("*.py"))
REJECTED = sorted((HERE / "rejected").glob("*.py"))
MARK = re.compile(r"#\s*E:")
PATHS = (ROOT, ROOT / "protos", ROOT / "examples" / "shop" / "protos", ROOT / "examples" / "travel" / "protos")
TIME_LIMIT_S = 230

pytestmark = [pytest.mark.full, pytest.mark.timeout(500)]  # both read all the types there are, and `make check` asks mypy first

Lines = dict[str, set[int]]
"""Lines with errors, by the name of the file."""


def mypy_errors(files: list[Path], cache: Path) -> tuple[Lines, str]:
    """Checks with the project's own settings, without its list of packages and exclusions."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(_mypy_settings(cache)), "--no-error-summary", *map(str, files)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    found: Lines = {}
    for path, line in re.findall(r"^(.+?):(\d+): error:", ended.stdout, re.MULTILINE):
        found.setdefault(Path(path).name, set()).add(int(line))
    return found, ended.stdout + ended.stderr


def _mypy_settings(cache: Path) -> Path:
    settings = cache / "mypy.ini"
    settings.write_text(
        f"[mypy]\nstrict = True\nmypy_path = {':'.join(map(str, PATHS))}\nexplicit_package_bases = True\nnamespace_packages = True\n"
        f"cache_dir = {cache / 'cache'}\n"
        "[mypy-asyncpg.*,google.rpc.*,grpc_status.*,grpc_health.*,grpc_reflection.*]\nignore_missing_imports = True\n"
    )
    return settings


def pyright_errors(files: list[Path], directory: Path, mode: str = "standard") -> tuple[Lines, str]:
    """Checks copies in a directory of their own: pyright looks at nothing outside of the directory of its settings."""
    directory.mkdir()
    for file in files:
        shutil.copy(file, directory)
    settings = directory / "pyrightconfig.json"
    settings.write_text(
        json.dumps(
            {
                "typeCheckingMode": mode,
                "extraPaths": [str(path) for path in PATHS],
                "pythonVersion": f"{sys.version_info.major}.{sys.version_info.minor}",
                "reportMissingModuleSource": False,
            }
        )
    )
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(settings)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    found: Lines = {}
    for each in json.loads(ended.stdout)["generalDiagnostics"]:
        if each["severity"] == "error":
            found.setdefault(Path(each["file"]).name, set()).add(each["range"]["start"]["line"] + 1)
    return found, ended.stdout


def marked(files: list[Path]) -> Lines:
    found: Lines = {}
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if MARK.search(line):
                found.setdefault(file.name, set()).add(number)
    return found


def test_mypy_accepts_what_is_right_and_refuses_misuse_where_it_stands(tmp_path: Path) -> None:
    accepted, told = mypy_errors(ACCEPTED, tmp_path)
    assert accepted == {}, told
    refused, told = mypy_errors(REJECTED, tmp_path)
    assert refused == marked(REJECTED), told


def test_pyright_accepts_what_is_right_and_refuses_misuse_where_it_stands(tmp_path: Path) -> None:
    accepted, told = pyright_errors(ACCEPTED, tmp_path / "accepted")
    assert accepted == {}, told
    refused, told = pyright_errors(REJECTED, tmp_path / "rejected")
    assert refused == marked(REJECTED), told
