"""Who wins when two starts want the same key or the same id (R4)."""

import pytest

from coordinator.core.values import DefinitionKey, SagaId
from coordinator.engine.ports import Append, Committed, StartLost
from tests.builders import DEFINITION, at
from tests.journals import OpenJournal, Told, World, first, new_id, new_ids, start_key, then

OTHER_DEFINITION = DefinitionKey("cancel-order", 1)


def lost(append: Append, winner: SagaId, *, same: bool = True, by_key: bool = True) -> StartLost:
    return StartLost(append=append, winner=winner, same=same, by_key=by_key)


@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "two batches"])
@pytest.mark.parametrize("same", [True, False])
async def test_second_start_with_a_key_is_told_the_first(
    journal: OpenJournal, told: Told, world: World, same: bool, at_once: bool
) -> None:  # R4
    winner, loser = new_ids(2)
    appends = first(winner, key=start_key("order-42")), first(loser, key=start_key("order-42"), asks="this" if same else "that")
    if at_once:
        journal.append(appends)
    else:
        journal.append(appends[:1])
        await told.until(1)
        journal.append(appends[1:])
    assert await told.until(2) == [Committed(append=appends[0]), lost(appends[1], winner, same=same)]
    assert world.sequences(loser) == []
    assert await journal.find_saga(loser) is None
    found = await journal.find_by_key(DEFINITION.name, "order-42", at(5))
    assert found is not None
    assert (found.saga_id, found.events) == (winner, ())


@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "two batches"])
@pytest.mark.parametrize("same", [True, False])
async def test_second_start_with_an_id_is_told_so(journal: OpenJournal, told: Told, world: World, same: bool, at_once: bool) -> None:  # R4
    saga = new_id()
    appends = first(saga), first(saga, asks="this" if same else "that", key=start_key("its own"))
    if at_once:
        journal.append(appends)
    else:
        journal.append(appends[:1])
        await told.until(1)
        journal.append(appends[1:])
    assert await told.until(2) == [Committed(append=appends[0]), lost(appends[1], saga, same=same, by_key=False)]
    assert world.sequences(saga) == [1]
    assert await journal.find_by_key(DEFINITION.name, "its own", at(5)) is None


async def test_key_counts_before_the_id(journal: OpenJournal, told: Told) -> None:  # R4
    holder, other = new_ids(2)
    journal.append((first(holder, key=start_key("order-42")), first(other)))
    await told.until(2)
    both = first(other, key=start_key("order-42"), asks="that")
    journal.append((both,))
    assert (await told.until(3))[2] == lost(both, holder, same=False)


async def test_start_sent_again_finds_itself(journal: OpenJournal, told: Told, world: World) -> None:  # R2
    saga = new_id()
    again = first(saga, key=start_key("order-42"))
    journal.append((first(saga, key=start_key("order-42")),))
    await told.until(1)
    journal.append((again,))
    assert (await told.until(2))[1] == lost(again, saga)
    assert world.sequences(saga) == [1]


async def test_expired_key_is_taken_over(journal: OpenJournal, told: Told, world: World) -> None:  # R4
    old, early, new, late = new_ids(4)
    journal.append((first(old, key=start_key("order-42", expires_at=at(100)), created_at=at(1)),))
    await told.until(1)
    too_early = first(early, key=start_key("order-42"), created_at=at(99.999_999))
    taker = first(new, key=start_key("order-42", expires_at=at(300)), created_at=at(100), asks="that")
    too_late = first(late, key=start_key("order-42"), created_at=at(200))
    journal.append((too_early, taker, too_late))
    assert (await told.until(4))[1:] == [lost(too_early, old), Committed(append=taker), lost(too_late, new, same=False)]
    held = await journal.find_by_key(DEFINITION.name, "order-42", at(200))
    assert held is not None
    assert held.saga_id == new
    assert world.sequences(old) == [1]  # a saga outlives its key


async def test_key_is_found_until_it_expires(journal: OpenJournal, told: Told) -> None:
    journal.append((first(new_id(), key=start_key("order-42", expires_at=at(100))),))
    await told.until(1)
    assert await journal.find_by_key(DEFINITION.name, "order-42", at(99.999_999)) is not None
    assert await journal.find_by_key(DEFINITION.name, "order-42", at(100)) is None
    assert await journal.find_by_key(DEFINITION.name, "order-43", at(1)) is None
    assert await journal.find_by_key(OTHER_DEFINITION.name, "order-42", at(1)) is None


async def test_key_of_another_definition_is_another_key(journal: OpenJournal, told: Told) -> None:  # R4
    place, cancel = new_ids(2)
    of_other = start_key("order-42", definition_name=OTHER_DEFINITION.name)
    journal.append((first(place, key=start_key("order-42")), first(cancel, key=of_other, definition=OTHER_DEFINITION)))
    results = await told.until(2)
    assert all(isinstance(result, Committed) for result in results)


async def test_starts_without_keys_do_not_meet(journal: OpenJournal, told: Told) -> None:
    journal.append([first(saga) for saga in new_ids(5)])
    assert all(isinstance(result, Committed) for result in await told.until(5))


async def test_winner_and_losers_of_one_batch_leave_the_others_alone(journal: OpenJournal, told: Told, world: World) -> None:  # R4
    there, a, b, c, d = new_ids(5)
    journal.append((first(there, key=start_key("taken")),))
    await told.until(1)
    batch = [
        first(a, key=start_key("taken")),
        first(b, key=start_key("free")),
        first(there, asks="that"),
        first(c, key=start_key("free")),
        first(d),
    ]
    journal.append(batch)
    assert (await told.until(6))[1:] == [
        lost(batch[0], there),
        Committed(append=batch[1]),
        lost(batch[2], there, same=False, by_key=False),
        lost(batch[3], b),
        Committed(append=batch[4]),
    ]
    assert [world.sequences(saga) for saga in (a, b, c, d)] == [[], [1], [], [1]]


@pytest.mark.parametrize("by_key", [True, False])
async def test_what_was_queued_behind_a_lost_start_is_lost_with_it(
    journal: OpenJournal, told: Told, world: World, by_key: bool
) -> None:  # R4
    winner, loser = new_ids(2)
    journal.append((first(winner, key=start_key("order-42")), then(winner, 2)))
    await told.until(2)
    contender = loser if by_key else winner
    start = first(contender, key=start_key("order-42") if by_key else None)
    behind = [then(contender, 2), then(contender, 3)]
    journal.append((start, behind[0]))
    journal.append(behind[1:])
    results = (await told.until(5))[2:]
    assert results == [lost(append, winner, by_key=by_key) for append in (start, *behind)]
    assert world.sequences(winner) == [1, 2]
    assert world.sequences(loser) == []


async def test_start_that_lost_may_be_made_again_with_the_same_id(journal: OpenJournal, told: Told, world: World) -> None:
    winner, loser = new_ids(2)
    journal.append((first(winner, key=start_key("order-42")),))
    await told.until(1)
    again = first(loser)
    journal.append((first(loser, key=start_key("order-42")), then(loser, 2), again, then(loser, 2)))
    results = await told.until(5)
    assert [type(result) for result in results[1:]] == [StartLost, StartLost, Committed, Committed]
    assert world.sequences(loser) == [1, 2]


async def test_many_starts_for_few_keys_have_one_winner_each(journal: OpenJournal, told: Told) -> None:
    sagas = new_ids(300)
    journal.append([first(saga, key=start_key(f"order-{place % 7}")) for place, saga in enumerate(sagas)])
    results = await told.until(300)
    winners = {result.append.saga_id for result in results if isinstance(result, Committed)}
    assert winners == set(sagas[:7])
    assert {result.winner for result in results if isinstance(result, StartLost)} == winners
