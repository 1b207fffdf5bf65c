"""A process that appends to a journal without end, and says what was announced: to be killed."""

import asyncio
import sys
from collections.abc import Sequence

from coordinator.engine.clock import SystemClock
from coordinator.engine.ports import Appended, Committed
from coordinator.journal import SqlJournal
from tests.journals import Told, first, new_id, then

STEPS = 4


async def main(path: str) -> None:
    def go_on(results: Sequence[Appended]) -> None:
        for result in results:
            assert isinstance(result, Committed)
            saga, sequence = result.append.saga_id, result.append.events[-1].sequence
            sys.stdout.write(f"{saga} {sequence}\n")
            sys.stdout.flush()
            journal.append((then(saga, sequence + 1) if sequence < STEPS else first(new_id()),))

    told = Told(go_on)
    async with await SqlJournal.open(path, clock=SystemClock(asyncio.get_running_loop()), listener=told) as journal:
        journal.append([first(new_id()) for _ in range(16)])
        await told.until_lost()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
