"""Lists of the coordinator, read page by page."""

from collections.abc import AsyncGenerator
from typing import Final

from participant_sdk.client.calls import call
from participant_sdk.client.connection import Connection
from saga.v1 import coordinator_pb2, saga_pb2

PAGE_SIZE: Final = 200
"""Entries asked for at once by what pages by itself."""


async def definitions_of(connection: Connection, name: str) -> AsyncGenerator[saga_pb2.SagaDefinition]:
    """See `SagaClient.list_definitions`."""
    request = coordinator_pb2.ListDefinitionsRequest(page_size=PAGE_SIZE, name=name)
    while True:
        page = await call(connection.saga_service.ListDefinitions, request, retries=connection.retries(), doing="list definitions")
        for definition in page.definitions:
            yield definition
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def sagas_of(connection: Connection, request: coordinator_pb2.ListSagasRequest) -> AsyncGenerator[saga_pb2.Saga]:
    """See `SagaClient.list`."""
    request.page_size = PAGE_SIZE
    while True:
        page = await call(connection.saga_service.ListSagas, request, retries=connection.retries(), doing="list sagas")
        for saga in page.sagas:
            yield saga
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def events_of(connection: Connection, saga_id: str, after: int) -> AsyncGenerator[saga_pb2.Event]:
    """See `SagaClient.history`."""
    request = coordinator_pb2.GetHistoryRequest(saga_id=saga_id, after_sequence=after, page_size=PAGE_SIZE)
    doing = f"read the history of saga {saga_id}"
    while True:
        page = await call(connection.saga_service.GetHistory, request, retries=connection.retries(), doing=doing, saga_id=saga_id)
        for event in page.events:
            yield event
        if not page.more or not page.events:
            return
        request.after_sequence = page.events[-1].sequence
