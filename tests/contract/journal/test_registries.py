"""Definitions, participants and secrets, which are kept beside the sagas."""

import asyncio

from coordinator.core.values import DefinitionKey
from tests.journals import OpenJournal, Told, World, definition, participant


async def test_new_definition_is_stored(journal: OpenJournal) -> None:
    assert await journal.put_definition(definition("a", 1)) == definition("a", 1)
    assert await journal.find_definition("a", 1) == definition("a", 1)


async def test_definition_stored_first_stays(journal: OpenJournal) -> None:  # R27
    await journal.put_definition(definition("a", 1, b"first"))
    assert await journal.put_definition(definition("a", 1, b"second")) == definition("a", 1, b"first")
    assert await journal.find_definition("a", 1) == definition("a", 1, b"first")


async def test_version_zero_is_the_highest(journal: OpenJournal) -> None:
    for version in (2, 10, 9):
        await journal.put_definition(definition("a", version))
    await journal.put_definition(definition("b", 11))
    assert await journal.find_definition("a", 0) == definition("a", 10)


async def test_unknown_definition_is_none(journal: OpenJournal) -> None:
    await journal.put_definition(definition("a", 1))
    assert await journal.find_definition("a", 2) is None
    assert await journal.find_definition("b", 0) is None


async def test_definitions_are_listed_by_name_and_version(journal: OpenJournal) -> None:
    stored = [definition("a", 1), definition("a", 2), definition("b", 1), definition("b", 10)]
    for one in reversed(stored):
        await journal.put_definition(one)
    assert await journal.list_definitions("", None, 10) == stored
    assert await journal.list_definitions("", None, 2) == stored[:2]
    assert await journal.list_definitions("", DefinitionKey("a", 2), 10) == stored[2:]
    assert await journal.list_definitions("b", None, 10) == stored[2:]
    assert await journal.list_definitions("b", DefinitionKey("b", 1), 10) == stored[3:]
    assert await journal.list_definitions("c", None, 10) == []


async def test_registrations_are_kept_by_name_and_target(journal: OpenJournal) -> None:
    for one in (participant("pay", "b:1"), participant("pay", "a:1"), participant("ship", "a:1")):
        await journal.put_participant(one)
    assert await journal.list_participants() == [participant("pay", "a:1"), participant("pay", "b:1"), participant("ship", "a:1")]


async def test_registration_is_renewed_in_its_place(journal: OpenJournal) -> None:
    await journal.put_participant(participant("pay", "a:1", b"old", 30))
    await journal.put_participant(participant("pay", "a:1", b"new", 60))
    assert await journal.list_participants() == [participant("pay", "a:1", b"new", 60)]


async def test_registries_outlive_the_journal(world: World) -> None:
    async with await world.open(Told()) as journal:
        await journal.put_definition(definition("a", 1))
        await journal.put_participant(participant("pay", "a:1", expires_s=1))
    async with await world.open(Told()) as journal:
        assert await journal.find_definition("a", 0) == definition("a", 1)
        assert await journal.list_participants() == [participant("pay", "a:1", expires_s=1)]


async def test_secret_offered_first_is_kept(journal: OpenJournal) -> None:
    assert await journal.keep_secret("tokens", b"first") == b"first"
    assert await journal.keep_secret("tokens", b"second") == b"first"
    assert await journal.keep_secret("others", b"\x00\xff") == b"\x00\xff"


async def test_secrets_offered_at_once_are_one(journal: OpenJournal) -> None:
    kept = await asyncio.gather(*(journal.keep_secret("tokens", bytes([number])) for number in range(20)))
    assert len(set(kept)) == 1


async def test_secret_outlives_the_journal(world: World) -> None:
    async with await world.open(Told()) as journal:
        await journal.keep_secret("tokens", b"first")
    async with await world.open(Told()) as journal:
        assert await journal.keep_secret("tokens", b"second") == b"first"
