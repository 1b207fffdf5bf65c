"""Where a coordinator is: what is an address, and what is none."""

from collections.abc import Sequence

import pytest

from participant_sdk.client import SagaClient, SyncSagaClient
from participant_sdk.client.addresses import ADDRESSES_MAX, parse_addresses


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("127.0.0.1:7700", ("127.0.0.1:7700",)),
        ("a:7700,b:7700", ("a:7700", "b:7700")),
        (" a:7700 , b:7700 ", ("a:7700", "b:7700")),
        (["a:7700", "b:7700"], ("a:7700", "b:7700")),
        ("a:7700,a:7700", ("a:7700",)),
        ("[::1]:7700,saga-0.saga.prod.svc:7700", ("[::1]:7700", "saga-0.saga.prod.svc:7700")),
        ("dns:///saga.example:7700", ("dns:///saga.example:7700",)),
        ("unix:/run/saga.sock", ("unix:/run/saga.sock",)),
        ("ipv4:10.0.0.1:7700,10.0.0.2:7700", ("ipv4:10.0.0.1:7700,10.0.0.2:7700",)),
        (("ipv4:10.0.0.1:7700,10.0.0.2:7700", "b:7700"), ("ipv4:10.0.0.1:7700,10.0.0.2:7700", "b:7700")),
    ],
)
def test_address_is_read(address: str | Sequence[str], targets: tuple[str, ...]) -> None:
    assert parse_addresses(address) == targets


@pytest.mark.parametrize(
    "address",
    ["", ",", "a:7700,", [], [""], "saga", "saga:", ":7700", "saga:http", "saga:0", "saga:65536", "a b:7700", "::1:7700", "saga:7700/path"],
)
def test_what_is_no_address_raises(address: str | Sequence[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_addresses(address)


def test_address_of_a_web_page_raises_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="found 'http://saga:7700'; leave out what stands before the host"):
        parse_addresses("http://saga:7700")


def test_too_many_addresses_raise() -> None:
    assert len(parse_addresses([f"n{number}:7700" for number in range(ADDRESSES_MAX)])) == ADDRESSES_MAX
    with pytest.raises(ValueError, match="found 33"):
        parse_addresses([f"n{number}:7700" for number in range(ADDRESSES_MAX + 1)])


def test_clients_refuse_what_is_no_address_at_once() -> None:
    with pytest.raises(ValueError, match="expected"):
        SagaClient("nowhere")
    with pytest.raises(ValueError, match="expected"):
        SyncSagaClient("nowhere")
