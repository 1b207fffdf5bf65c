"""Definition files: what is read, and what is said of what cannot be."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli.definition_diff import duration_text
from coordinator.cli.definition_file import (
    FILE_BYTES_MAX,
    DefinitionFileError,
    FoundDefinition,
    at_line,
    find_definitions,
    read_definitions,
)
from coordinator.cli.definition_shape import parse_duration, read_shape
from coordinator.cli.definition_text import DEPTH_MAX, NODES_MAX, DefinitionTextError, parse_json, parse_yaml
from participant_sdk.builder import DefinitionError
from participant_sdk.descriptors import closed_descriptors
from saga.v1 import coordinator_pb2, saga_pb2
from shop.v1 import shop_pb2
from tests.unit.cli.definition_texts import EVERYTHING, SMALLEST

SHOP = closed_descriptors([shop_pb2.PlaceOrder.DESCRIPTOR])

SAGAS = """
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from participant_sdk.builder import Saga

good = Saga("good", input=PlaceOrder)
good.step("payments.charge", request=PlaceOrder, response=PaymentCharged)
bad = Saga("bad", input=PlaceOrder)
worse = Saga("worse", input=PlaceOrder, version=0)
worse.step("payments", request=PlaceOrder, response=PaymentCharged)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.binpb").write_bytes(SHOP.SerializeToString())
    return tmp_path


def put(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def found_in(folder: Path, text: str, name: str = "saga.yaml") -> FoundDefinition:
    (found,) = find_definitions(put(folder, name, text), None)
    return found


def told(folder: Path, text: str, name: str = "saga.yaml") -> list[str]:
    """What is wrong, as it is shown, without the folder."""
    return [at_line(Path(name), problem) for problem in found_in(folder, text, name).judge()]


# ── What is read ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_yaml_with_everything_is_the_definition_that_it_says(folder: Path) -> None:
    found = found_in(folder, EVERYTHING)
    assert found.problems == []
    assert found.descriptors == SHOP
    definition = found.definition
    assert dict(definition.labels) == {"team": "shop", "floor": "3", "open": "yes"}
    assert definition.defaults.execute_retry == saga_pb2.RetryPolicy(
        max_attempts=5,
        initial_backoff=Duration(nanos=200_000_000),
        multiplier=1.5,
        max_backoff=Duration(seconds=30),
        non_retryable_codes=[14, 10],
    )
    assert definition.defaults.HasField("compensate_retry")
    reserve, charge, thank, book = definition.steps
    assert reserve.HasField("after")
    assert not reserve.after.step_ids
    assert list(charge.after.step_ids) == ["reserve"]
    assert (charge.attempt_timeout, charge.execute_time_limit) == (Duration(seconds=1, nanos=500_000_000), Duration(seconds=5400))
    assert [step.kind for step in definition.steps] == [1, 3, 5, 4]
    assert (thank.without_compensation, book.when) == (True, "input.quantity > 0u")
    assert (definition.on_success.input, definition.on_success.time_limit) == ("book", Duration(seconds=3600))
    assert definition.on_failure.action == "mail.sorry"


def test_json_of_protobuf_is_read_as_it_is(folder: Path) -> None:
    definition = found_in(folder, EVERYTHING).definition
    for options in ({}, {"preserving_proto_field_name": True}, {"use_integers_for_enums": True}):
        text = json_format.MessageToJson(definition, **options)  # type: ignore[arg-type]
        (found,) = find_definitions(put(folder, "saga.json", text), folder / "shop.binpb")
        assert (found.problems, found.definition) == ([], definition)


def test_request_of_protobuf_in_json_is_read_with_its_descriptors(folder: Path) -> None:
    definition = found_in(folder, EVERYTHING).definition
    request = coordinator_pb2.RegisterDefinitionRequest(definition=definition, descriptors=SHOP)
    (found,) = find_definitions(put(folder, "saga.json", json_format.MessageToJson(request)), None)
    assert (found.problems, found.definition, found.descriptors) == ([], definition, SHOP)


def test_file_of_several_documents_is_several_definitions(folder: Path) -> None:
    second = SMALLEST.replace("smallest", "second")
    file = put(folder, "sagas.yaml", f"descriptors: shop.binpb{SMALLEST}---\ndescriptors: shop.binpb{second}")
    assert [each.definition.name for each in find_definitions(file, None)] == ["smallest", "second"]
    assert [each.definition.name for each in find_definitions(f"{file}:second", None)] == ["second"]
    with pytest.raises(DefinitionFileError, match=r"expected a definition called third in .*, found smallest, second"):
        find_definitions(f"{file}:third", None)


def test_words_stay_the_words_that_they_are(folder: Path) -> None:
    labels = found_in(folder, f"labels: {{country: no, at: 12:30, day: 2030-01-31, empty: ''}}{SMALLEST}").definition.labels
    assert dict(labels) == {"country": "no", "at": "12:30", "day": "2030-01-31", "empty": ""}


def test_value_that_is_null_is_a_field_that_is_not_given(folder: Path) -> None:
    found = found_in(folder, f"descriptors: shop.binpb\ntime_limit: null\non_success: ~\ndefaults:{SMALLEST}")
    assert found.judge() == []
    assert not any(found.definition.HasField(field) for field in ("time_limit", "on_success", "defaults"))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("10s", Duration(seconds=10)),
        ("200ms", Duration(nanos=200_000_000)),
        ("1h30m", Duration(seconds=5400)),
        ("1.5s", Duration(seconds=1, nanos=500_000_000)),
        ("0.000001s", Duration(nanos=1_000)),
        ("2d", Duration(seconds=172_800)),
        ("0s", Duration()),
    ],
)
def test_duration_is_read(text: str, duration: Duration) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5s", "5min", "1e3s", "5s" * 100, "five", "\u0665s"])
def test_text_that_is_no_duration_is_none(text: str) -> None:
    assert parse_duration(text) is None


@given(st.integers(0, 366 * 86_400 * 10**6))
def test_duration_that_is_shown_is_read_again(micros: int) -> None:
    duration = Duration(seconds=micros // 10**6, nanos=micros % 10**6 * 1_000)
    assert parse_duration(duration_text(duration)) == duration
    assert parse_duration(json_format.MessageToDict(duration)) == duration  # type: ignore[arg-type]


# ── What is wrong in it, and where ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "input_type: shop",
            "input_typ: shop",
            "saga.yaml:5: input_typ: SagaDefinition has no field 'input_typ' (did you mean input_type?)",
        ),
        ("    kind: PIVOT", "    kin: PIVOT", "saga.yaml:27: step charge, kin: StepDefinition has no field 'kin' (did you mean kind?)"),
        ("    kind: PIVOT", "    kind: PIVOTAL", "saga.yaml:27: step charge, kind: expected one of COMPENSATABLE, READ_ONLY, PIVOT,"),
        ("    kind: PIVOT", "    kind: 99", "saga.yaml:27: step charge, kind: expected one of COMPENSATABLE, READ_ONLY, PIVOT,"),
        ("    kind: PIVOT", "    kind: STEP_KIND_UNSPECIFIED", "saga.yaml:27: step charge, kind: expected one of COMPENSATABLE,"),
        ("version: 3", "version: -3", "saga.yaml:4: version: expected a whole number within the range of the field, found '-3'"),
        ("version: 3", "version: 3.0", "saga.yaml:4: version: expected a whole number, found '3.0'"),
        ("time_limit: 5m", "time_limit: 300", 'saga.yaml:8: time_limit: expected a duration with its unit like "200ms"'),
        ("after: [reserve]", "after: reserve", "saga.yaml:26: step charge, after: expected a list of step ids like [reserve, charge]"),
        ("after: [reserve]", "after: [[]]", "saga.yaml:26: step charge, after[0]: expected a text, found a list"),
        ("[UNAVAILABLE, 10]", "[UNAVAILBLE]", "(did you mean UNAVAILABLE?), found 'UNAVAILBLE'"),
        ("multiplier: 1.5", "multiplier: fast", "execute_retry.multiplier: expected a number, found 'fast'"),
        (
            "without_compensation: true",
            "without_compensation: yes",
            "step thank, without_compensation: expected true or false, found 'yes'",
        ),
        ("{team: shop,", "{team: [],", "labels['team']: expected a text, found a list"),
        ("labels: {team: shop, floor: 3, open: yes}", "labels: shop", "saga.yaml:9: labels: expected keys with their texts, found 'shop'"),
        ("compensate_retry: {max_attempts: 0}", "compensate_retry: 3", "expected fields of RetryPolicy, found '3'"),
        ("max_attempts: 5,", "max_attempts: 5, maxAttempts: 6,", "'maxAttempts' is there twice, in two spellings; keep one"),
        ("descriptors: shop.binpb", "descriptors: no.binpb", "no.binpb cannot be read: No such file or directory"),
        ("descriptors: shop.binpb", "descriptors: [shop.binpb]", "descriptors: expected the path of a FileDescriptorSet, found a list"),
        ("descriptors: shop.binpb\n", "\n", "descriptors: expected message types: say `descriptors: FILE.binpb` in the file"),
    ],
)
def test_mistake_is_told_with_its_line_and_what_was_expected(folder: Path, old: str, new: str, expected: str) -> None:
    assert EVERYTHING.count(old) >= 1
    problems = told(folder, EVERYTHING.replace(old, new, 1))
    assert any(expected in problem.replace(f"{folder}/", "") for problem in problems), problems
    assert len(problems) == 1


def test_rules_of_the_coordinator_are_told_with_the_line_of_the_field(folder: Path) -> None:
    text = (
        EVERYTHING.replace("id: charge", "id: 2nd")
        .replace("action: mail.sorry", "action: sorry")
        .replace("time_limit: 5m", "time_limit: 0s")
    )
    problems = told(folder, text)
    assert problems[0].startswith("saga.yaml:8: time_limit: expected 1 ms to 366 days")
    assert any(problem.startswith("saga.yaml:24: step 2nd, id: ") for problem in problems)


def test_missing_field_is_told_with_the_line_of_what_it_is_missing_in(folder: Path) -> None:
    (problem,) = told(folder, "descriptors: shop.binpb" + SMALLEST.replace("    output_type: shop.v1.StockReserved\n", ""))
    assert problem.startswith("saga.yaml:6: step reserve, output_type: expected the full name of a message")


def test_everything_is_told_at_once_by_line_without_what_follows_from_it(folder: Path) -> None:
    text = "descriptors: shop.binpb" + SMALLEST.replace("version: 1", "version: one").replace(
        "input_type: shop.v1.PlaceOrder\nsteps", "inputtype: x\nsteps"
    )
    problems = told(folder, text.replace("action: inventory.reserve", "action: Inventory"))
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["saga.yaml:3", "version"],
        ["saga.yaml:4", "inputtype"],
        ["saga.yaml:7", "step reserve, action"],
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "", "a.yaml:1: expected a definition, found an empty file"),
        ("a.yaml", "[]", "a.yaml:1: definition: expected fields of SagaDefinition, found a list"),
        ("a.yaml", "a: [", "a.yaml:2: no YAML: "),
        ("a.yaml", "name: x\nname: y", "a.yaml:2: 'name' is there twice, first in line 1; keep one"),
        ("a.yaml", "a: &x 1\nb: *x", "a.yaml:2: the alias *x is not followed; write out what it stands for"),
        ("a.yaml", "a: !!python/object/apply:os.system ['true']", "a.yaml:1: expected no tags, found tag:yaml.org,2002:python/"),
        ("a.yaml", "[a]: 1", "a.yaml:1: expected a word as a key, found a list or a mapping"),
        ("a.yaml", 'a: "\\ud800"', "a.yaml:1: "),
        ("a.yaml", "steps:\n  - input: Reserve{sku: input.sku}", "needs quotes around it, or stands below `|`"),
        ("a.yaml", "a: \x07", "a.yaml:1: no YAML: "),
        ("a.yaml", "[" * (DEPTH_MAX + 1), f"expected at most {DEPTH_MAX} values inside one another"),
        ("a.json", "", "a.json:1: no JSON: "),
        ("a.json", '{\n"a": 1,\n"a": 2}', "a.json:3: 'a' is there twice, first in line 2; keep one"),
        ("a.json", '{\n  "version": NaN}', "NaN is no number"),
        ("a.json", '{"a": "\\ud800"}', "a.json:1: expected Unicode text, found half of a character"),
        ("a.json", "[" * 100_000, "a.json:1: no JSON that can be read"),
        ("a.json", "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), f"expected at most {DEPTH_MAX} values inside one another"),
        ("a.json", '{\n\n"version": [\n"x"]}', "a.json:3: version: expected a whole number, found a list"),
    ],
)
def test_text_that_cannot_be_read_is_one_problem_with_its_line(folder: Path, name: str, text: str, expected: str) -> None:
    problems = told(folder, text, name)
    assert any(expected in problem for problem in problems), problems


def test_aliases_that_would_fill_the_memory_are_refused_before_they_do(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (problem,) = told(folder, "\n".join(lines))
    assert "the alias *a0 is not followed" in problem


def test_file_with_too_much_in_it_is_refused(folder: Path) -> None:
    (problem,) = told(folder, "steps: [" + "1," * (NODES_MAX + 1) + "]")
    assert f"expected at most {NODES_MAX} values in one file" in problem
    with pytest.raises(DefinitionFileError, match="too long"):
        find_definitions(put(folder, "long.yaml", " " * (FILE_BYTES_MAX + 1)), None)


def test_file_that_is_no_utf_8_is_a_problem(folder: Path) -> None:
    (folder / "saga.yaml").write_bytes(b"name: \xff")
    (found,) = find_definitions(str(folder / "saga.yaml"), None)
    assert [str(problem) for problem in found.judge()] == ["expected UTF-8, found byte 0xff at 6"]


def test_descriptors_that_are_none_are_told(folder: Path) -> None:
    (folder / "shop.binpb").write_bytes(b"not descriptors")
    (problem,) = told(folder, EVERYTHING)
    assert "is no FileDescriptorSet" in problem
    (folder / "shop.binpb").write_bytes(FileDescriptorSet(file=[*SHOP.file, *SHOP.file]).SerializeToString())
    (problem,) = told(folder, EVERYTHING)
    assert problem == "saga.yaml:2: descriptors: a file is given twice"


# ── Files and names ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_python_file_gives_each_saga_sound_or_not(folder: Path) -> None:
    good, bad, worse = find_definitions(put(folder, "sagas.py", SAGAS), None)
    assert good.judge() == []
    assert [str(problem).partition(" expected")[0] for problem in bad.judge()] == ["saga 'bad': steps:"]
    assert [str(problem).partition(" expected")[0] for problem in worse.judge()] == [
        "saga 'worse': version:",
        "saga 'worse': step payments, action:",
    ]


def test_python_file_with_an_unsound_saga_is_not_read_for_registering(folder: Path) -> None:
    file = put(folder, "sagas.py", SAGAS)
    with pytest.raises(DefinitionError, match="bad"):
        read_definitions(file, None)
    assert [each.definition.name for each in read_definitions(f"{file}:good", None)] == ["good"]


def test_text_with_an_unreadable_field_is_not_read_for_registering(folder: Path) -> None:
    file = put(folder, "saga.yaml", EVERYTHING.replace("kind: PIVOT", "kind: PIVOTAL").replace("version: 3", "version: x"))
    with pytest.raises(DefinitionFileError) as caught:
        read_definitions(file, None)
    assert [line.removeprefix(f"{folder}/").split(": ")[0] for line in str(caught.value).splitlines()] == ["saga.yaml:4", "saga.yaml:27"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.yaml", "found nothing"),
        ("saga.txt", r"expected a \.py, \.yaml, \.yml or \.json file"),
        ("sagas.py:nothing", "expected a Saga called nothing .* found bad, good, worse"),
        ("none.py", "found none"),
        ("broken.py", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_file_without_the_definition_asked_for_raises(folder: Path, name: str, expected: str) -> None:
    put(folder, "saga.txt", "")
    put(folder, "sagas.py", SAGAS)
    put(folder, "none.py", "x = 1")
    put(folder, "broken.py", "1 / 0")
    with pytest.raises(DefinitionFileError, match=expected):
        find_definitions(str(folder / name), None)


# ── Whatever is written ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

SCRAPS = st.text("{}[]:,-&*!|>'\"#\n \tabc019.é\\ud8", max_size=60)


@given(SCRAPS)
def test_whatever_is_written_is_read_or_refused_with_a_line(text: str) -> None:
    for parse in (parse_yaml, lambda text: [parse_json(text)]):
        lines = []
        try:
            for document in parse(text):
                lines += [problem.line for problem in read_shape(document).problems]
        except DefinitionTextError as error:
            lines.append(error.line)
        assert all(line >= 1 for line in lines)


PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
"""JSON writes more as escapes than YAML reads."""
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["steps", "id", "after", "kind", "time_limit", "labels", "version", "defaults", "execute_retry"]), inner
        )
    ),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_yaml_and_json_with_the_same_content_are_the_same_definition(value: object) -> None:
    text = json.dumps(value)
    (of_yaml,) = parse_yaml(text)
    from_json, from_yaml = read_shape(parse_json(text)), read_shape(of_yaml)
    assert (from_json.definition, from_json.problems) == (from_yaml.definition, from_yaml.problems)
