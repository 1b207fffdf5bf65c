"""docs/payloads.md does what it says: its code runs, and its table names every type that is carried."""

import re
from typing import Any

import pytest

from participant_sdk.payloads import PayloadEncodeError, payload_type
from participant_sdk.payloads.codecs import SCALARS, WELL_KNOWN
from participant_sdk.testing import MemoryBarrier, SagaKit
from tests.documents import ROOT

DOCUMENT = (ROOT / "docs" / "payloads.md").read_text(encoding="utf-8")
CODE = re.compile(r"<!-- the test-suite runs this -->\n```python\n(.*?)```", re.DOTALL)


def program() -> dict[str, Any]:
    (code,) = CODE.findall(DOCUMENT)
    names: dict[str, Any] = {"__name__": "payloads_document"}
    exec(compile(code, "docs/payloads.md", "exec", dont_inherit=True), names)
    return names


async def test_code_runs_as_written(saga_kit: SagaKit) -> None:
    names = program()
    saga_kit.serve(names["Inventory"](barrier=MemoryBarrier()))
    order = names["Order"]("ann", [names["Item"]("bicycle", 2)])
    run = await saga_kit.run(names["place_order"], order)
    run.then_completed()
    assert saga_kit.calls[0].input(names["Reserve"]) == names["Reserve"]("bicycle", 2)
    refused = await saga_kit.run(names["place_order"], names["Order"]("ann", [names["Item"]("bicycle", 11)]))
    refused.then_compensated(because="OUT_OF_STOCK")


def test_table_names_every_type_that_is_carried() -> None:
    rows = re.findall(r"^\| (.*?) \| `([\w.]+)` \|", DOCUMENT, re.MULTILINE)
    told = {name: kind for types, kind in rows for name in re.findall(r"`(\w+)`", types)}
    carried = {python_type: codec.kind for python_type, codec in SCALARS.items()}
    carried.update((python_type, codec.full_name) for python_type, codec in WELL_KNOWN.items())
    assert {python_type.__name__: told.get(python_type.__name__) for python_type in carried} == {
        python_type.__name__: kind for python_type, kind in carried.items()
    }


def test_messages_that_are_quoted_are_those_that_are_said() -> None:
    names = program()
    kind = payload_type(names["Item"])
    assert "shop.v1.Item.quantity:\nexpected int, found str" in DOCUMENT
    with pytest.raises(PayloadEncodeError, match=r"^shop\.v1\.Item\.quantity: expected int, found str$"):
        kind.pack(names["Item"]("a", "2"))
