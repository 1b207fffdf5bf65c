"""The schema for editors says what the reader accepts, and nothing else."""

import json
import os
import re

import pytest
import yaml

from tests.unit.cli.definition_schema import SCHEMA_FILE, made_schema
from tests.unit.cli.definition_texts import EVERYTHING, SMALLEST


def test_schema_is_what_the_descriptor_and_its_comments_say() -> None:
    if os.environ.get("UPDATE_DOCS"):
        SCHEMA_FILE.write_text(made_schema())
    assert SCHEMA_FILE.read_text() == made_schema(), "run the tests once with UPDATE_DOCS=1"


@pytest.mark.parametrize("text", [SMALLEST, EVERYTHING], ids=["smallest", "everything"])
def test_what_the_reader_reads_the_schema_accepts(text: str) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    assert list(complaints(yaml.safe_load(text), schema, schema)) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("name:", "nam:", ""),
        ("version: 3", "version: three", "version"),
        ("kind: PIVOT", "kind: PIVOTAL", "steps[1].kind"),
        ("after: [reserve]", "after: reserve", "steps[1].after"),
        ("time_limit: 5m", "time_limit: 5", "time_limit"),
        ("[UNAVAILABLE, 10]", "[UNAVAILBLE]", "defaults.execute_retry.non_retryable_codes[0]"),
        ("action: payments.charge", "acton: payments.charge", "steps[1]"),
    ],
)
def test_what_the_reader_refuses_the_schema_marks(old: str, new: str, place: str) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    assert EVERYTHING.count(old) >= 1
    assert place in set(complaints(yaml.safe_load(EVERYTHING.replace(old, new, 1)), schema, schema))


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def complaints(value: object, schema: dict[str, object], root: dict[str, object], path: str = "") -> list[str]:
    """Where a value is not what a schema says: as much of JSON Schema as ours uses."""
    known = {"$schema", "$ref", "title", "description", "examples", "type", "enum", "pattern", "properties", "additionalProperties"}
    assert schema.keys() <= known | {"required", "items", "definitions"}, "this judge knows every word of the schema"
    reference = schema.get("$ref")
    if isinstance(reference, str):
        definitions = root["definitions"]
        assert isinstance(definitions, dict)
        return complaints(value, definitions[reference.removeprefix("#/definitions/")], root, path)
    return [*_of_value(value, schema, path), *_of_parts(value, schema, root, path)]


def _of_value(value: object, schema: dict[str, object], path: str) -> list[str]:
    wanted, enum, pattern = schema.get("type"), schema.get("enum"), schema.get("pattern")
    is_type = wanted is None or any(isinstance(value, TYPES[each]) for each in ([wanted] if isinstance(wanted, str) else list(wanted)))  # type: ignore[call-overload]
    is_listed = enum is None or value in enum  # type: ignore[operator]
    is_formed = pattern is None or (isinstance(value, str) and re.search(str(pattern), value) is not None)
    return [] if is_type and is_listed and is_formed else [path]


def _of_parts(value: object, schema: dict[str, object], root: dict[str, object], path: str) -> list[str]:
    found: list[str] = []
    items, properties, others = schema.get("items"), schema.get("properties", {}), schema.get("additionalProperties")
    assert isinstance(properties, dict)
    if isinstance(value, list) and isinstance(items, dict):
        for index, item in enumerate(value):
            found += complaints(item, items, root, f"{path}[{index}]")
    if isinstance(value, dict):
        required = schema.get("required", [])
        assert isinstance(required, list)
        found += [path for key in required if key not in value]
        for key, item in value.items():
            inner = properties.get(key, others)
            found += complaints(item, inner, root, f"{path}.{key}" if path else key) if isinstance(inner, dict) else [path]
    return found
