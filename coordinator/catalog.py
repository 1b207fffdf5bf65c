"""Registered definitions, compiled once per version and kept."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from coordinator.codec.definitions import CompiledDefinition, compile_content
from coordinator.core.plan import SagaPlan
from coordinator.core.values import DefinitionKey
from coordinator.engine.ports import Clock, Journal, StoredDefinition

Compile = Callable[[bytes], CompiledDefinition]
"""Compiles what was stored. Raises ValueError if it cannot be compiled any more."""
COMPILED_MAX: Final = 1_000
"""Compiled definitions kept; beyond it the one used longest ago is compiled again when it is needed."""


class DefinitionCatalog:
    """Implements `Plans`. A version never changes once it is registered, so what is compiled never goes stale."""

    def __init__(self, *, clock: Clock, journal: Journal, compile_stored: Compile = compile_content) -> None:
        self._clock = clock
        self._journal = journal
        self._compile_stored = compile_stored
        self._compiled: OrderedDict[DefinitionKey, CompiledDefinition] = OrderedDict()
        self._highest: dict[str, int] = {}

    async def register(self, compiled: CompiledDefinition) -> bool | None:
        """Stores a definition: True if it is new, False if the same was there already, None if other content holds its name and version."""
        key = compiled.key
        offered = StoredDefinition(key=key, content=compiled.content, registered_at=self._clock.now())
        stored = await self._journal.put_definition(offered)
        if stored.content != compiled.content:
            return None
        self._keep(compiled)
        self._highest[key.name] = max(key.version, self._highest.get(key.name, 0))
        return stored.registered_at == offered.registered_at

    async def find(self, name: str, version: int) -> CompiledDefinition | None:
        """A registered definition; version 0 is the highest. None if there is none. Raises ValueError if it cannot be compiled any more."""
        compiled = self.find_compiled(name, version)
        if compiled is not None:
            return compiled
        stored = await self._journal.find_definition(name, version or self._highest.get(name, 0))
        if stored is None:
            return None
        compiled = self._compile_stored(stored.content)
        self._keep(compiled)
        if version == 0:
            self._highest[name] = max(compiled.key.version, self._highest.get(name, 0))
        return compiled

    def find_compiled(self, name: str, version: int) -> CompiledDefinition | None:
        """The same at once, if it is kept here; None says nothing."""
        key = DefinitionKey(name, version or self._highest.get(name, 0))
        compiled = self._compiled.get(key)
        if compiled is not None:
            self._compiled.move_to_end(key)
        return compiled

    def look_again(self) -> None:
        """Another node may have registered a higher version of anything."""
        self._highest.clear()

    async def plan_of(self, key: DefinitionKey, /) -> SagaPlan:
        """The plan of a registered definition. Raises KeyError if there is none, ValueError if it cannot be compiled any more."""
        compiled = await self.find(key.name, key.version)
        if compiled is None:
            raise KeyError(f"definition {key.name!r} version {key.version} is not registered")
        return compiled.plan

    def _keep(self, compiled: CompiledDefinition) -> None:
        self._compiled[compiled.key] = compiled
        self._compiled.move_to_end(compiled.key)
        while len(self._compiled) > COMPILED_MAX:
            self._compiled.popitem(last=False)
