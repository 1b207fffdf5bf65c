"""What every test shares: the budgets of Hypothesis, chosen by the environment variable HYPOTHESIS_PROFILE."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL

from tests.budget import budget

pytest_plugins = ["saga_pytest.plugin"]  # where the entry point is not installed, as in a second checkout

MARIADB: Final = ("mariadb", "pymysql", "asyncmy")
POSTGRES: Final = ("postgres", "asyncpg", "psycopg")
"""What fixtures and parameters are called that need these servers."""
SUITES_OF_THE_SDK: Final = {"barrier", "outbox", "idempotency"}

settings.register_profile("fast", max_examples=40, stateful_step_count=40, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "full", max_examples=budget(500), stateful_step_count=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# What judges a change is the same for everybody: new examples are looked for by whoever runs the full tier by hand.
settings.register_profile("repeatable", settings.get_profile("full"), derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[URL, str]]:
    """A PostgreSQL server, and the name of a database on it with the tables of the journal to make others like it."""
    from tests.journals import make_template
    from tests.postgres_server import postgres_server

    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server, make_template(server)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A MariaDB server. Skips the test where there is none."""
    from tests.mariadb_server import mariadb_server

    with mariadb_server(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every law, so that the full tier runs it again with the big budget, and what the SDK does on servers, which is of that tier:
    the fast one has the same suites on SQLite.
    """
    for item in items:
        if "property" in item.path.parts:
            item.add_marker(pytest.mark.property)
        if _is_on(MARIADB, item) or (SUITES_OF_THE_SDK & {*item.path.parts} and _is_on(POSTGRES, item)):
            item.add_marker(pytest.mark.full)


def _is_on(names: Iterable[str], item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    said = [*getattr(item, "fixturenames", ()), *map(str, call.params.values() if call is not None else ())]
    return any(name in each for each in said for name in names)
