"""Settings: three sources, the later one wins, and everything that is wrong is said at once."""

from pathlib import Path

import pytest

from coordinator.limits import ParticipantLimits
from coordinator.settings import Settings, SettingsError, load_settings


def _write(folder: Path, text: str) -> Path:
    file = folder / "saga.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_nothing_given_returns_defaults() -> None:
    assert load_settings() == Settings()


def test_all_sources_given_later_one_wins(tmp_path: Path) -> None:
    file = _write(tmp_path, 'address = "127.0.0.1:1"\nlog_level = "debug"\ntrace_sample_ratio = 1\n')
    settings = load_settings(
        file=file,
        environment={"SAGA_ADDRESS": "127.0.0.1:2", "SAGA_LOG_FORMAT": "TEXT", "PATH": "/bin"},
        flags={"address": "127.0.0.1:3"},
    )
    assert settings == Settings(address="127.0.0.1:3", log_level="debug", log_format="text", trace_sample_ratio=1.0)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("orders.db", "sqlite+aiosqlite:///orders.db"),
        ("/srv/orders.db", "sqlite+aiosqlite:////srv/orders.db"),
        ("sqlite:////srv/orders.db", "sqlite+aiosqlite:////srv/orders.db"),
        ("sqlite+aiosqlite:///orders.db", "sqlite+aiosqlite:///orders.db"),
    ],
)
def test_database_path_or_url_becomes_url(given: str, url: str) -> None:
    assert load_settings(flags={"database": given}).database == url


@pytest.mark.parametrize("given", ["", ":memory:", "sqlite://", "sqlite+aiosqlite:///:memory:", "mysql://host/saga"])
def test_database_that_cannot_hold_a_journal_is_refused(given: str) -> None:
    with pytest.raises(SettingsError, match="SAGA_DATABASE"):
        load_settings(environment={"SAGA_DATABASE": given})


def test_participants_table_and_text_read_alike(tmp_path: Path) -> None:
    file = _write(tmp_path, '[participants]\npayments = "dns:///payments:50051"\nshipping = "unix:/run/shipping.sock"\n')
    text = "payments=dns:///payments:50051, shipping=unix:/run/shipping.sock"
    assert load_settings(file=file) == load_settings(environment={"SAGA_PARTICIPANTS": text})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("payments", "'payments' = ''"),
        ("Payments=localhost:1", "'Payments' = 'localhost:1'"),
        ("payments=localhost:1,payments=localhost:2", "'payments' again = 'localhost:2'"),
    ],
)
def test_participant_without_a_proper_name_or_target_is_refused(text: str, found: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environment={"SAGA_PARTICIPANTS": text})
    (problem,) = caught.value.problems
    assert (problem.key, problem.source, problem.found) == ("participants", "environment variable SAGA_PARTICIPANTS", found)
    assert "each once" in problem.expected


# ── Limits of participants ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_said_gives_every_participant_the_same_limits() -> None:
    assert load_settings().limits_of("anybody") == ParticipantLimits()


def test_limits_for_all_and_for_one_read_from_the_file(tmp_path: Path) -> None:
    file = _write(
        tmp_path,
        """
        participant_rate_per_second = 100
        [participants]
        shipping = "unix:/run/shipping.sock"
        [participants.payments]
        target = "dns:///payments:50051"
        concurrency = 16
        rate_per_second = 0
        circuit_failures = 0
        circuit_open_s = 0.5
        circuit_open_s_max = 60
        [participants.inventory]
        rate_per_second = 2.5
        """,
    )
    settings = load_settings(file=file)
    assert settings.limits_of("payments") == ParticipantLimits(
        concurrency=16, rate_per_second=0.0, circuit_failures=0, circuit_open_s=0.5, circuit_open_s_max=60.0
    )
    assert settings.limits_of("inventory") == ParticipantLimits(rate_per_second=2.5)
    assert settings.limits_of("shipping") == settings.limits_of("anybody") == ParticipantLimits(rate_per_second=100.0)
    # One that announces itself needs no target.
    assert settings.participant_targets == {"payments": "dns:///payments:50051", "shipping": "unix:/run/shipping.sock"}


def test_target_from_the_environment_takes_away_no_limit_of_the_file(tmp_path: Path) -> None:
    file = _write(tmp_path, '[participants]\nshipping = "a:1"\n[participants.payments]\ntarget = "b:1"\nrate_per_second = 50\n')
    settings = load_settings(file=file, environment={"SAGA_PARTICIPANTS": "payments=c:1,orders=d:1"})
    assert settings.participant_targets == {"shipping": "a:1", "payments": "c:1", "orders": "d:1"}
    assert settings.limits_of("payments").rate_per_second == 50.0


def test_everything_wrong_with_participants_is_said_with_its_path(tmp_path: Path) -> None:
    file = _write(
        tmp_path,
        """
        [participants]
        shipping = 7
        [participants.payments]
        target = "dns:///payments:50051"
        rate = 50
        concurrency = true
        [participants.Inventory]
        target = "a:1"
        """,
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(file=file)
    assert {(problem.key, problem.found) for problem in caught.value.problems} == {
        ("participants.shipping.target", "7"),
        ("participants.payments.rate", "an unknown key"),
        ("participants.payments.concurrency", "True"),
        ("participants", "'Inventory' = {'target': 'a:1'}"),
    }


def test_unknown_key_is_refused_with_its_source(tmp_path: Path) -> None:
    file = _write(tmp_path, 'databse = "orders.db"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(file=file, environment={"SAGA_DATABSE": "orders.db"})
    assert [(problem.key, problem.source) for problem in caught.value.problems] == [
        ("databse", f"file {file}"),
        ("databse", "environment variable SAGA_DATABSE"),
    ]


def test_variables_that_kubernetes_sets_are_ignored() -> None:
    environment = {
        "SAGA_SERVICE_HOST": "10.0.0.7",
        "SAGA_SERVICE_PORT_GRPC": "7700",
        "SAGA_PORT": "tcp://10.0.0.7:7700",
        "SAGA_COORDINATOR_PORT_7700_TCP_ADDR": "10.0.0.7",
        "SAGA_CONFIG": "saga.toml",
    }
    assert load_settings(environment=environment) == Settings()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("address", "7700"),
        ("address", "::1:7700"),
        ("address", "localhost:66000"),
        ("log_level", "loud"),
        ("participant_concurrency", "0"),
        ("participant_concurrency", "1.5"),
        ("participant_rate_per_second", "0.0009"),
        ("participant_rate_per_second", "-1"),
        ("participant_circuit_failures", "-1"),
        ("participant_circuit_open_s", "0"),
        ("participant_circuit_open_s_max", "3601"),
        ("drain_time_limit_s", "-1"),
        ("payload_bytes_max", "4194305"),
        ("trace_sample_ratio", "nan"),
    ],
)
def test_value_out_of_range_names_key_source_expected_and_found(key: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags={key: text})
    (problem,) = caught.value.problems
    assert (problem.key, problem.source, problem.found) == (key, f"flag --{key.replace('_', '-')}", repr(text))
    assert problem.expected


def test_several_problems_are_all_said(tmp_path: Path) -> None:
    file = _write(tmp_path, "trace_sample_ratio = true\nlog_level = 3\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file=file, flags={"address": "nowhere"})
    assert [problem.key for problem in caught.value.problems] == ["trace_sample_ratio", "log_level", "address"]


@pytest.mark.parametrize("content", ["address = ", "\x00"])
def test_file_that_is_no_toml_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(SettingsError, match="TOML"):
        load_settings(file=_write(tmp_path, content))


def test_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        load_settings(file=tmp_path / "missing.toml")


@pytest.mark.parametrize("address", ["0.0.0.0:7700", "[::]:7700", "unix:/run/saga.sock"])
def test_node_that_others_cannot_reach_is_refused_where_there_may_be_others(address: str) -> None:
    flags = {"address": address, "database": "postgresql+asyncpg://saga@db/saga"}
    with pytest.raises(SettingsError, match="expected where other nodes on the same database reach this one") as refused:
        load_settings(flags=flags)
    assert refused.value.problems[0].key == "advertise"
    assert load_settings(flags={**flags, "advertise": "node1:7700"}).advertise == "node1:7700"
    assert load_settings(flags={"address": address}).advertise == ""


@pytest.mark.parametrize("url", ["postgresql+asyncpg://saga@db:5432/saga", "postgresql://db/saga", "postgres://saga:secret@db/saga"])
def test_database_may_be_one_that_nodes_share(url: str) -> None:
    assert load_settings(flags={"database": url}).database == url
    with pytest.raises(SettingsError, match="postgresql\\+asyncpg://user@host/database"):
        load_settings(flags={"database": "mysql://db/saga"})
