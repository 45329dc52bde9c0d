"""The set of active definitions, compiled, as one transaction of the engine uses it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lifecycle_engine.catalog.documents import read_document
from lifecycle_engine.lifecycle.definitions import (
    BEGINNING,
    ActiveDefinition,
    Definition,
    Timeline,
    compile_definition,
    retired,
)
from lifecycle_engine.lifecycle.guards import GuardLanguage
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.lifecycles import (
    RETIRED,
    Switch,
    Version,
    definition_number,
    find_version,
    in_force,
    switches,
)


class DefinitionSet(NamedTuple):
    """The active lifecycles under the number of this set.

    `activated_in` tells since which set each is active, `activated_at` since when. `instants` are those at which a
    version took effect, or will (microseconds since the epoch, UTC).
    """

    number: int
    active: dict[str, Timeline]
    activated_in: dict[str, int]
    activated_at: dict[str, int]
    instants: tuple[int, ...]


class DefinitionSetMovedError(Exception):
    """A definition has been activated since the set was loaded; the transaction must begin anew under the new one."""


class Definitions:
    """Loads the active set and keeps it for as long as its number stands. Versions are immutable and compiled once."""

    def __init__(self, database: Database, language: GuardLanguage) -> None:
        self._database = database
        self._language = language
        self._compiled: dict[tuple[str, int], Definition] = {}
        self._loaded: DefinitionSet | None = None

    async def current(self) -> DefinitionSet:
        """The set that was loaded last."""
        return self._loaded or await self.reload()

    async def reload(self) -> DefinitionSet:
        """Reads the active set from the database."""
        async with self._database.transaction() as connection:
            number = await definition_number(connection)
            made = await switches(connection)
        activated_in: dict[str, int] = {}
        activated_at: dict[str, int] = {}
        for switch in made:
            activated_in.setdefault(switch.key, switch.number)
            activated_at.setdefault(switch.key, switch.activated_at)
        instants = tuple(switch.activated_at if switch.since is None else switch.since for switch in made)
        self._loaded = DefinitionSet(number, await self.timelines(made), activated_in, activated_at, instants)
        return self._loaded

    async def timelines(self, made: Iterable[Switch]) -> dict[str, Timeline]:
        """What these activations, in their order, make of each lifecycle."""
        by_key: dict[str, list[Switch]] = {}
        for switch in made:
            by_key.setdefault(switch.key, []).append(switch)
        return {key: await self._timeline(key, in_force(of_lifecycle)) for key, of_lifecycle in by_key.items()}

    async def _timeline(self, key: str, standing: Iterable[Switch]) -> Timeline:
        timeline: list[ActiveDefinition] = []
        for switch in standing:
            since = BEGINNING if switch.since is None else switch.since
            if switch.version == RETIRED:
                last = timeline[-1]
                timeline.append(ActiveDefinition(last.version, retired(last.definition), since))
            else:
                timeline.append(ActiveDefinition(switch.version, await self.version(key, switch.version), since))
        return tuple(timeline)

    def guard_errors(self) -> dict[tuple[str, str], int]:
        """(lifecycle, version) -> how often a guard erred on the values that it was asked about, in this process."""
        return {(key, str(version)): one.compiler.errors for (key, version), one in self._compiled.items()}

    async def version(self, key: str, version: int) -> Definition:
        """One version, active or not. Raises LookupError where it was never posted."""
        if (compiled := self._compiled.get((key, version))) is not None:
            return compiled
        async with self._database.transaction() as connection:
            found = await find_version(connection, key, version)
        if found is None:
            raise LookupError(f"{key} has no version {version}")
        return self._compile(found)

    def _compile(self, version: Version) -> Definition:
        name = (version.key, version.version)
        if name not in self._compiled:
            document = read_document(version.document, version.media_type)
            self._compiled[name] = compile_definition(document.data, self._language)
        return self._compiled[name]
