"""Payments: takes money through the HTTP API of a payment company.

python -m examples.external_api.payments ADDRESS URL_OF_THE_API DATABASE
"""

import asyncio
import json
import sys
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import EXTERNAL, Barrier, Participant, Rejected, SqlBarrier, StepContext, action, serve

CENTS = 12_00


class Payments(Participant, name="payments"):
    def __init__(self, *, barrier: Barrier, api: str) -> None:
        super().__init__(barrier=barrier)
        self._api = api

    @action(effect=EXTERNAL)
    def charge(self, card: StringValue, step: StepContext) -> StringValue:
        # After a crash this runs again, with the same key: the API knows it, and takes nothing twice.
        status, answer = self._post("/charges", step, key=step.key, body={"card": card.value, "cents": CENTS})
        if status == HTTPStatus.PAYMENT_REQUIRED:
            raise Rejected("CARD_DECLINED", answer["error"])
        return StringValue(value=answer["id"])

    @charge.compensation
    def refund(self, card: StringValue, charge_id: StringValue | None, step: StepContext) -> None:
        # `charge_id` is None if nobody knows whether the money was taken. The key of the charge names it all the same.
        self._post("/refunds", step, key=step.key, body={"charged_by": step.execute_key})  # 404: it was not taken, so all is well.

    def _post(self, path: str, step: StepContext, *, key: str, body: dict[str, object]) -> tuple[int, dict[str, str]]:
        """The answer of the API, if it is one that says what happened. Raises whatever else happens: then nobody knows."""
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        request = Request(self._api + path, json.dumps(body).encode(), headers)  # noqa: S310 - the address is ours
        try:
            # THE REQUEST ENDS BEFORE THE ATTEMPT DOES: a refund that comes after it finds the charge, or there will be none.
            with urlopen(request, timeout=step.time_left().total_seconds()) as response:  # noqa: S310
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                if error.code in {HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.NOT_FOUND}:
                    return error.code, json.load(error)
            raise


async def main(address: str, api: str, database: str) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
    barrier = SqlBarrier(engine)
    await barrier.create_table()
    await serve(Payments(barrier=barrier, api=api), address=address, coordinator=None)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
