"""The bookkeeper as a process of its own: `python -m tests.bookkeeper_process DIRECTORY COORDINATOR ADDRESS`."""

import asyncio
import sys
from pathlib import Path

from participant_sdk import serve
from participant_sdk.otlp import configure_otlp
from tests.participants import bookkeeper


async def main(directory: Path, coordinator: str, address: str) -> None:
    flush = configure_otlp("books")
    async with bookkeeper(directory) as keeper:
        await serve(keeper, address=address, coordinator=coordinator)
    flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
