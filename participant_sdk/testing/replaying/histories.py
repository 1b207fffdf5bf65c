"""Recorded sagas: from what `saga show ID --json` writes, or from a coordinator."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.cli.payloads import PayloadError, PayloadTypes
from participant_sdk.client import SagaClient
from saga.v1 import saga_pb2


class HistoryError(Exception):
    """A recorded saga cannot be read; says which and why."""


@dataclass(frozen=True, slots=True)
class History:
    """One recorded saga."""

    saga: saga_pb2.Saga
    events: Sequence[saga_pb2.Event]

    @classmethod
    async def of(cls, client: SagaClient, saga_id: str) -> Self:
        """A saga as its coordinator has it. Raises SagaNotFound."""
        return cls(await client.get(saga_id), [event async for event in client.history(saga_id)])

    @property
    def title(self) -> str:
        """Example: "saga 0197… (place-order v1)"."""
        return f"saga {self.saga.id} ({self.saga.definition.name} v{self.saga.definition.version})"


def read_histories(file: Path, descriptors: FileDescriptorSet) -> list[History]:
    """Every saga of a file: what `saga show ID --json` writes, one after the other. `descriptors`: the message types to read them with.

    Raises HistoryError.
    """
    types, decoder, text = PayloadTypes(descriptors), json.JSONDecoder(), file.read_text().strip()
    found: list[History] = []
    while text:
        try:
            content, end = decoder.raw_decode(text)
            events = [types.from_json(event, saga_pb2.Event()) for event in content["events"]]
            found.append(History(types.from_json(content["saga"], saga_pb2.Saga()), events))
        except (ValueError, KeyError, TypeError, PayloadError) as error:
            raise HistoryError(f"{file}: entry {len(found) + 1} is not what `saga show ID --json` writes: {error!s}") from error
        text = text[end:].lstrip()
    if not found:
        raise HistoryError(f"{file} holds no saga; write one with saga show ID --json > {file}")
    return found
