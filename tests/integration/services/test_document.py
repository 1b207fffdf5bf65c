"""docs/how-to/existing-services.md does what it says: its files are used as they are, its commands are run, its tables are complete."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc_tools
import pytest
from click.testing import CliRunner
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc_tools import protoc

from coordinator import settings_of_services
from coordinator.bootstrap import run_coordinator
from coordinator.cli.app import main
from coordinator.dispatcher import service_caller
from coordinator.service_files import compile_services
from coordinator.services import KEY_METADATA_DEFAULT
from coordinator.settings import load_settings
from coordinator.telemetry.setup import Telemetry
from participant_sdk import SagaClient
from participant_sdk.definitions.message_types import MessageTypes
from saga.v1 import saga_pb2
from tests.documents import ROOT
from tests.integration.following import statuses
from tests.integration.services.stand import A_MINUTE

DOCUMENT = (ROOT / "docs/how-to/existing-services.md").read_text()
FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file of the document, where its commands are run."""
    for name, content in FILE.findall(DOCUMENT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (command,) = re.findall(r"^protoc .*$", DOCUMENT, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    assert protoc.main([*command.split(), f"-I{tmp_path}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]) == 0
    return tmp_path


class Warehouse:
    """As its team wrote it."""

    def __init__(self, types: MessageTypes) -> None:
        self._types = types
        self.reserved: dict[str, Message] = {}
        """By key."""
        self.released: list[tuple[str, str]] = []

    async def reserve(self, request: Any, context: Any) -> Message:
        key = dict(context.invocation_metadata())["idempotency-key"]
        reply = self.make("ReserveReply", reservation_id=f"r-{len(self.reserved) + 1}")
        return self.reserved.setdefault(key, reply)

    async def release(self, request: Any, context: Any) -> Message:
        self.released.append((request.reservation_id, request.order_id))
        return Empty()

    async def dispatch(self, request: Any, context: Any) -> Message:
        if not request.address:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "where to?")
        return self.make("DispatchReply", parcel_id=f"parcel of {request.reservation_id}")

    def make(self, name: str, **fields: Any) -> Message:
        return self._types.get(f"warehouse.v1.{name}")(**fields)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        methods = {"Reserve": self.reserve, "Release": self.release, "Dispatch": self.dispatch}
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=self._types.get(f"warehouse.v1.{name}Request").FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )
            for name, method in methods.items()
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("warehouse.v1.Warehouse", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)


async def test_service_of_the_document_is_a_participant(folder: Path) -> None:
    warehouse = Warehouse(MessageTypes(FileDescriptorSet.FromString((folder / "warehouse.binpb").read_bytes())))
    async with warehouse.serving() as target:
        settings = load_settings(
            file=folder / "saga.toml",
            environment={"SAGA_PARTICIPANTS": f"warehouse={target}"},
            flags={"address": "127.0.0.1:0", "database": str(folder / "saga.db")},
        )
        async with run_coordinator(settings, Telemetry(None)) as coordinator, SagaClient(coordinator.address) as client:
            ((command, told),) = re.findall(r"```console\n\$ saga (.*?)\n(.*?)```", DOCUMENT, re.DOTALL)
            environment = {"SAGA_ADDRESS": coordinator.address}
            ended = await asyncio.to_thread(CliRunner().invoke, main, command.split(), env=environment)
            assert ended.output == told
            goods = warehouse.make("ReserveRequest", order_id="o-1", sku="bicycle", pieces=1)
            handles = [
                await client.start("place-order", warehouse.make("PlaceOrder", goods=goods, address=address)) for address in ("Main St", "")
            ]
            sent, refused = [await handle.wait(timeout=A_MINUTE) for handle in handles]
    assert sent.status == saga_pb2.SAGA_STATUS_COMPLETED
    assert statuses(refused) == {"reserve": "COMPENSATED", "dispatch": "REJECTED"}
    reservation: Any = warehouse.reserved[f"{refused.id}/reserve/execute/1"]
    assert warehouse.released == [(reservation.reservation_id, "o-1")]


def test_expression_of_the_document_fits(folder: Path) -> None:
    (text,) = re.findall(r"<!-- expression -->\n\s*```text\n(.*?)```", DOCUMENT, re.DOTALL)
    service = load_settings(file=folder / "saga.toml").services["warehouse"]
    action = replace(service.actions["reserve"], compensate_input=text)
    assert compile_services({"warehouse": replace(service, actions={"reserve": action})})["warehouse"].actions["reserve"].compensate


def test_tables_name_every_setting_and_every_metadata() -> None:
    for name in (*settings_of_services.SERVICE_READERS, *settings_of_services._ACTION_READERS, *settings_of_services.STATUSES):
        assert name == "actions" or name in DOCUMENT
    for name in (KEY_METADATA_DEFAULT, service_caller.EXECUTE_KEY, service_caller.SAGA_ID, service_caller.STEP_ID, service_caller.ATTEMPT):
        assert f"`{name}`" in DOCUMENT
