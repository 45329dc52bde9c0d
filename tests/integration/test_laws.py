"""The laws, through the engine and on both databases, over stories in which everything happens that can.

Facts of a few customers come in any order, late, twice, in batches over several partitions; anonymous ids are linked
and unlinked, customers merged and parted, facts retracted; definitions switch, time passes or not, workers begin anew.
What is recorded in the end is what the oracle says of the facts alone, which shares no code with the engine; and what
was answered on the way stays answered. The long profile: `--hypothesis-profile=laws`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import delete, select, update
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.engine.activation import catch_up
from lifecycle_engine.engine.batch import apply_batch
from lifecycle_engine.engine.definitions import Definitions, DefinitionSet, DefinitionSetMovedError
from lifecycle_engine.engine.refold import folded
from lifecycle_engine.engine.timers import let_time_pass
from lifecycle_engine.lifecycle import fold as fold_module
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.explanations import Known, explain_instant, explain_touchpoint
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from lifecycle_engine.store.aggregates import LATEST, Aggregate, find_aggregate, settle
from lifecycle_engine.store.answers.facts import facts_of
from lifecycle_engine.store.answers.reached import last_instant
from lifecycle_engine.store.answers.stays import KnownLine, LineFilter, find_lines, find_stay
from lifecycle_engine.store.customers import CustomerRow, Identity, customers_behind, find_customer, names_of
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.history import Line
from lifecycle_engine.store.lifecycles import RETIRED, activate_version, add_version, definition_number
from lifecycle_engine.store.tables import change, customer, definition_set, metadata
from lifecycle_engine.store.wakes import due_customers
from tests import oracle, oracle_identity
from tests.integration.stories import (
    ANONYMOUS,
    CUSTOMERS,
    PARTITIONS,
    Activate,
    Arrive,
    Ask,
    CatchUp,
    Happening,
    PassTime,
    Restart,
    Story,
    Undone,
    imports,
    knots,
    message_of,
    stories,
    undoings,
)
from tests.record import LOG, deliveries, record
from tools.services import PostgresServer

pytestmark = pytest.mark.timeout(7200)
"""With `--hypothesis-profile=laws` they take many minutes."""

IDENTITIES = [
    *(Identity("customer_id", value) for value in CUSTOMERS),
    *(Identity("anonymous_id", value) for value in ANONYMOUS),
]


EXPLAINED = 4
"""Facts, and lines, of one customer that an explanation is asked for, or a few more."""
_DECADE = 10 * 365 * 86_400_000_000


def examples(one_in: int, least: int) -> Callable[[Any], Any]:
    """So many of the profile's examples: each of these is a deployment."""
    return settings(
        max_examples=max(least, settings().max_examples // one_in),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
        deadline=None,
    )


# -- two databases, made empty for each example ----------------------------------------------------------------------


class ClockedDatabase(Database):
    """One whose clock is `behind` by so many microseconds."""

    behind = 0

    @property
    def clock_expression(self) -> str:
        return f"{super().clock_expression} - {self.behind}"


Play = Callable[[ClockedDatabase], Coroutine[Any, Any, None]]


class Stage:
    """Where stories are played: an empty database for each."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def play(self, play: Play) -> None:
        raise NotImplementedError


class SqliteStage(Stage):
    """A copy of a migrated file."""

    def __init__(self, runner: asyncio.Runner, template: Path) -> None:
        super().__init__(runner)
        self._template = template

    def play(self, play: Play) -> None:
        path = self._template.with_name("played.db")
        for leftover in path.parent.glob("played.db*"):
            leftover.unlink()
        shutil.copy(self._template, path)

        async def run() -> None:
            database = ClockedDatabase(f"sqlite+aiosqlite:///{path}")
            # What a crash of the machine would lose is no matter here.
            engine = database.engine.sync_engine
            sqlalchemy_event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
            try:
                await play(database)
            finally:
                await database.close()

        self._runner.run(run())


class PostgresStage(Stage):
    """One database, whose rows are taken out."""

    def __init__(self, runner: asyncio.Runner, database: ClockedDatabase) -> None:
        super().__init__(runner)
        self._database = database

    def play(self, play: Play) -> None:
        async def run() -> None:
            async with self._database.transaction() as connection:
                for table in metadata.sorted_tables:
                    if table is not definition_set:
                        await connection.execute(delete(table))
                await connection.execute(update(definition_set).values(number=0))
            await play(self._database)

        self._runner.run(run())


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def _migrate(url: str) -> None:
    async with record(url):
        pass


@pytest.fixture(scope="module")
def sqlite(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    template = tmp_path_factory.mktemp("laws") / "template.db"
    runner.run(_migrate(f"sqlite+aiosqlite:///{template}"))
    return SqliteStage(runner, template)


@pytest.fixture(scope="module")
def postgresql(runner: asyncio.Runner, postgres: PostgresServer) -> Iterator[Stage]:
    name = f"laws_{uuid.uuid4().hex}"
    postgres.create_database(name)
    runner.run(_migrate(postgres.url(name)))
    database = ClockedDatabase(postgres.url(name), by_key_only=True)
    yield PostgresStage(runner, database)
    runner.run(database.close())
    postgres.drop_database(name)


@pytest.fixture(scope="module", autouse=True)
def _checkpoints_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_module, "CHECKPOINT_EVERY", 2)
        yield


# -- playing ---------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What was answered about an identity as known at an instant."""

    aggregate: Aggregate | None
    lines: list[KnownLine]
    stays: list[Any]


class Asked(NamedTuple):
    identity: Identity
    known_at: int
    as_of: tuple[int, ...]
    answer: Answer


class Worker:
    """One process of the engine. `failures` are the transactions that the database ended and that were begun anew."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.definitions = Definitions(database, Cel())
        self.failures: list[DBAPIError] = []

    async def do(self, work: Callable[[DefinitionSet], Coroutine[Any, Any, object]]) -> None:
        """Does a transaction of the engine, and again where an engine does it again."""
        while True:
            try:
                await work(await self.definitions.current())
                return
            except DefinitionSetMovedError:
                await self.definitions.reload()
            except DBAPIError as error:
                if not is_transient(error):
                    raise
                self.failures.append(error)

    def restart(self) -> None:
        self.definitions = Definitions(self.database, Cel())


class Player:
    """A deployment to which a story happens: the processes, and what there is to remember of it."""

    def __init__(self, database: ClockedDatabase, story: Story, workers: int = 2) -> None:
        self.database = database
        self.is_ahead = story.is_ahead
        database.behind = _DECADE if story.is_ahead else 0
        self.workers = [Worker(database) for _ in range(workers)]
        self.timers = Worker(database)
        self.lifecycles: dict[str, list[oracle.Version]] = {}
        self.facts: list[Touchpoint] = []
        self.asked: list[Asked] = []
        self._next = [0] * PARTITIONS

    @property
    def failures(self) -> list[DBAPIError]:
        return [error for each in (*self.workers, self.timers) for error in each.failures]

    def worker_of(self, partition: int) -> Worker:
        return self.workers[partition % len(self.workers)]

    async def do(self, happening: Happening) -> None:
        match happening:
            case Arrive():
                await self.apply(happening)
            case Activate(since, document):
                await self.activate(since, document)
            case PassTime(horizon):
                await self.pass_time(horizon)
            case CatchUp(horizon, count):
                await self.catch_up(horizon, count)
            case Restart():
                for each in (*self.workers, self.timers):
                    each.restart()
            case Ask(as_of):
                await self.ask(as_of)

    async def apply(self, batch: Arrive) -> None:
        messages = [message_of(fact, muted=batch.muted) for fact in batch.facts]
        given = deliveries(messages, self._next[batch.partition], batch.partition)
        self._next[batch.partition] += len(messages)
        self.facts += batch.facts

        async def work(definitions: DefinitionSet) -> None:
            outcome = await apply_batch(self.database, definitions, LOG, given, quiet=0)
            assert outcome.dead == 0

        worker, other = self.worker_of(batch.partition), self.worker_of(batch.partition + 1)
        if not batch.again:
            await worker.do(work)
        else:
            ended = await asyncio.gather(worker.do(work), other.do(work), return_exceptions=True)
            assert sorted(type(each).__name__ for each in ended) == ["NoneType", "PositionMovedError"], ended

    async def activate(self, since: int | None, document: Mapping[str, Any]) -> None:
        key = document["lifecycle"]
        async with self.database.transaction() as connection:
            now = await self.database.clock(connection)
            versions = self.lifecycles.setdefault(key, [])
            if oracle.is_retired(document):
                _, version, _ = versions[-1]
                await activate_version(connection, key, RETIRED, now, since)
            else:
                added = await add_version(connection, key, json.dumps(document), "application/json", now)
                version = added.version
                await activate_version(connection, key, version, now, since)
        versions.append((since, version, document))

    async def pass_time(self, horizon: int) -> None:
        async with self.database.transaction() as connection:
            # Where the story is long past, whoever has to be looked at has to be now.
            due = await due_customers(connection, horizon if self.is_ahead else LATEST, (-LATEST, 0), 1000)
        ids = [id_ for _, id_ in due]
        await self.timers.do(lambda definitions: let_time_pass(self.database, definitions, ids, horizon, quiet=0))

    async def catch_up(self, horizon: int, count: int) -> None:
        async with self.database.transaction() as connection:
            ids = await customers_behind(connection, await definition_number(connection), 0, count)
        await self.timers.do(lambda definitions: catch_up(self.database, definitions, ids, horizon, quiet=0))

    async def ask(self, as_of: tuple[int, ...]) -> None:
        for identity in IDENTITIES:
            async with self.database.transaction() as connection:
                known_at = await settle(self.database, connection, identity) - 1
                answer = await _answer(connection, identity, known_at, as_of)
            self.asked.append(Asked(identity, known_at, as_of, answer))

    async def again(self, asked: Asked) -> Answer:
        async with self.database.transaction() as connection:
            return await _answer(connection, asked.identity, asked.known_at, asked.as_of)

    async def finish(self, now: int) -> None:
        """All that is left to do is done, and time passes up to an instant."""
        await self.catch_up(now + 1, 1000)
        await self.pass_time(now + 1)


async def _answer(connection: AsyncConnection, identity: Identity, known_at: int, as_of: tuple[int, ...]) -> Answer:
    aggregate = await find_aggregate(connection, identity, known_at)
    lines: list[KnownLine] = []
    if aggregate is not None:
        lines = await find_lines(connection, aggregate.id, known_at, LineFilter(superseded=True, refusals=True))
    stays = [
        await find_stay(connection, identity, *journey, instant, known_at)
        for journey in sorted({journey_of(known) for known in lines}, key=repr)
        for instant in as_of
    ]
    return Answer(aggregate, lines, stays)


async def play_in_order(database: ClockedDatabase, story: Story) -> Player:
    """One thing happens after the other."""
    player = Player(database, story)
    for happening in story.happenings:
        await player.do(happening)
    await player.finish(story.now)
    return player


async def play_together(database: ClockedDatabase, story: Story, workers: int) -> Player:
    """The workers share the partitions, and all else happens at the same time."""
    player = Player(database, story, workers)
    lanes: dict[Worker, list[Happening]] = {}
    for happening in story.happenings:
        worker = player.worker_of(happening.partition) if isinstance(happening, Arrive) else player.timers
        lanes.setdefault(worker, []).append(happening)

    async def play(lane: list[Happening]) -> None:
        for happening in lane:
            await player.do(happening)

    async with asyncio.TaskGroup() as together:
        for lane in lanes.values():
            together.create_task(play(lane))
    await player.finish(story.now)
    return player


# -- the laws --------------------------------------------------------------------------------------------------------


async def assert_lawful(player: Player, now: int) -> None:
    """All laws but the fifth, which takes two stories, once all is done."""
    facts = [fact._asdict() for fact in player.facts]
    owner = oracle_identity.owners(facts)
    belonging = oracle_identity.customers(facts)
    definitions = await Definitions(player.database, Cel()).reload()
    for identity in IDENTITIES:
        name = (identity.value, None) if identity.kind == "customer_id" else (None, identity.value)
        root = Identity(*owner(*name))  # type: ignore[arg-type]
        async with player.database.transaction() as connection:
            row = await find_customer(connection, identity)
            aggregate = await find_aggregate(connection, identity, LATEST)
            if row is None:
                assert root not in belonging or root != identity
                continue
            lines = await find_lines(connection, row.id, LATEST, LineFilter(superseded=True, refusals=True))
            shown = await find_lines(connection, row.id, LATEST, LineFilter(refusals=True))
            if aggregate is not None and root == identity:
                await assert_explained(connection, definitions, aggregate, [known.line.event for known in shown])
        # Whoever belongs to somebody has no history and no state.
        own = belonging.get((identity.kind, identity.value), [])
        expected = oracle.replay_customer(player.lifecycles, own, now)
        assert passages_of(shown) == {name: (each.stays, each.refusals) for name, each in expected.items()}
        if own:
            assert_state(row, definitions.active, own, now)
        else:
            assert row.state is None or not row.state.journeys
        if (root.kind, root.value) in belonging:
            assert aggregate is not None
        if aggregate is not None:
            assert aggregate.identity == root
        assert (row.owner is None) == (root == identity)
        assert_tiled(lines)
    for asked in player.asked:
        assert await player.again(asked) == asked.answer, asked.identity
    await assert_told(player.database)


async def assert_explained(
    connection: AsyncConnection, definitions: DefinitionSet, aggregate: Aggregate, shown: Sequence[Event]
) -> None:
    """What is said of a few facts, and of the instants of a few lines, is what is recorded of them."""
    facts = folded(await facts_of(connection, aggregate, LATEST))
    reached = await last_instant(connection, aggregate, LATEST)
    for key, timeline in definitions.active.items():
        known = Known(key, timeline, facts, reached)
        lines = [event for event in shown if event.lifecycle == key]
        for fact in facts[:: len(facts) // EXPLAINED + 1]:
            told = [line for account in explain_touchpoint(known, fact) for line in account.lines]
            assert sorted(told, key=repr) == sorted((line for line in lines if line.place == fact.place), key=repr)
        for line in lines[:: len(lines) // EXPLAINED + 1]:
            account = explain_instant(known, line.at, line.subject)
            stays = [each for each in lines if each.subject == line.subject and each.is_stay and each.at <= line.at]
            assert account.transition == (stays[-1] if stays else None)
            judged = [(one.decision.rule, one.decision.stage) for one in account.judgements
                      if one.decision is not None and not one.is_unseen]  # fmt: skip
            recorded = [each for each in lines if (each.subject, each.at) == (line.subject, line.at)]
            assert judged == [(each.rule, each.stage) for each in recorded if each.rule is not None]


def passages_of(shown: Sequence[KnownLine]) -> dict[tuple[str, str | None], tuple[Any, Any]]:
    """The visible lines as the oracle tells them, in their order."""
    found: dict[tuple[str, str | None], tuple[Any, Any]] = {}
    for event in (known.line.event for known in shown):
        stays, refusals = found.get((event.lifecycle, event.subject), ((), ()))
        if event.is_stay:
            stays = (*stays, stay(event))
        else:
            refusals = (*refusals, refusal(event))
        found[event.lifecycle, event.subject] = stays, refusals
    return found


def stay(event: Event) -> oracle.Stay:
    return oracle.Stay(
        event.stage, event.at, event.origin, event.move, event.skipped, event.rule, event.cause, event.touchpoint,
        event.source, event.definition_version,
    )  # fmt: skip


def refusal(event: Event) -> oracle.Refusal:
    return oracle.Refusal(
        event.at, event.rule, event.stage, event.reason or "", event.touchpoint, event.source, event.origin,
        event.cause, event.definition_version,
    )  # fmt: skip


def assert_state(row: CustomerRow, active: Any, own: Sequence[Any], now: int) -> None:
    """The state is that of the fold over the same facts."""
    expected = fold(active, [Touchpoint(**fact) for fact in own], until=now)
    assert row.state is not None
    assert written(row.state) == written(expected)


def written(state: CustomerState) -> str:
    """A text that differs wherever two states do, also between 1, 1.0 and True."""
    journeys = sorted(
        (key, subject or "", sorted(journey.visits.items()), journey._replace(visits={}))
        for key, subjects in state.journeys.items()
        for subject, journey in subjects.items()
    )
    return repr((state.place, state.facts, journeys, sorted(state.traits.items(), key=repr)))


def assert_tiled(lines: Sequence[KnownLine]) -> None:
    """At whatever instant it is asked, each stay leaves from the stage before it, and when the next one begins."""
    instants = {line.recorded_at for line, _ in lines} | {line.superseded_at or 0 for line, _ in lines}
    for known_at in sorted(instants):
        journeys: dict[tuple[str, str | None], list[Event]] = {}
        for line, _ in lines:
            if line.event.is_stay and stood(line, known_at):
                journeys.setdefault((line.event.lifecycle, line.event.subject), []).append(line.event)
        for stays in journeys.values():
            assert stays[0].origin is None
            assert stays[0].move == "start"
            for before, after in pairwise(stays):
                assert before.order < after.order
                assert after.origin == before.stage
    for known in (known for known in lines if known.line.event.is_stay):
        last = (known.line.superseded_at or LATEST) - 1
        begun = [
            each.line.event.at
            for each in lines
            if journey_of(each) == journey_of(known)
            and each.line.event.is_stay
            and stood(each.line, last)
            and each.line.event.order > known.line.event.order
        ]
        assert known.left_at == min(begun, default=None)


def stood(line: Line, known_at: int) -> bool:
    return line.recorded_at <= known_at and (line.superseded_at is None or line.superseded_at > known_at)


def journey_of(known: KnownLine) -> tuple[str, str | None]:
    return known.line.event.lifecycle, known.line.event.subject


async def changes_of(database: Database) -> list[dict[str, Any]]:
    """All that was told, in its order, of whom and whether it was muted."""
    query = select(change.c.customer, change.c.type, change.c.muted, change.c.body).order_by(change.c.id)
    async with database.transaction() as connection:
        rows = (await connection.execute(query)).all()
    return [{"name": row.customer, "type": row.type, "muted": row.muted, **json.loads(row.body)} for row in rows]


async def assert_told(database: Database) -> None:
    """Sequences have no gap, and each change begins where the one before it ended."""
    sequences: dict[Any, int] = {}
    current: dict[Any, str | None] = {}
    for one in await changes_of(database):
        if one["type"] not in ("stage.changed", "history.corrected"):
            continue
        journey = one["name"], one["lifecycle"], one["subject"]
        if one["type"] == "history.corrected":
            # A journey without its beginning is none.
            if has_start(one["replaced"]) and not has_start(one["by"]):
                assert one["by"] == []
                current[journey] = None
            continue
        sequences[journey] = sequences.get(journey, 0) + 1
        assert one["sequence"] == sequences[journey]
        assert one["from"] == current.get(journey)
        current[journey] = one["to"]
    async with database.transaction() as connection:
        ids = [row.id for row in await connection.execute(select(customer.c.id))]
        for id_ in ids:
            lines = await find_lines(connection, id_, LATEST, LineFilter())
            stages = {journey_of(known): known.line.event.stage for known in lines}
            assert stages == {name[1:]: stage for name, stage in current.items() if name[0] == id_ and stage}


def has_start(stays: Sequence[Any]) -> bool:
    return any(each["move"] == "start" for each in stays)


@examples(10, least=80)
@given(story=stories)
def test_whatever_happens_is_recorded_as_the_oracle_says(sqlite: Stage, story: Story) -> None:
    async def play(database: ClockedDatabase) -> None:
        await assert_lawful(await play_in_order(database, story), story.now)

    sqlite.play(play)


@examples(50, least=20)
@given(story=stories)
def test_so_it_is_when_two_workers_do_it_together(postgresql: Stage, story: Story) -> None:
    async def play(database: ClockedDatabase) -> None:
        player = await play_together(database, story, workers=2)
        await assert_lawful(player, story.now)
        assert not player.failures

    postgresql.play(play)


@examples(50, least=20)
@given(story=knots)
def test_links_and_merges_of_overlapping_sets_neither_deadlock_nor_lose_one(postgresql: Stage, story: Story) -> None:
    async def play(database: ClockedDatabase) -> None:
        player = await play_together(database, story, workers=4)
        await assert_lawful(player, story.now)
        assert not player.failures

    postgresql.play(play)


@examples(10, least=20)
@given(undone=undoings)
def test_an_unlink_undoes_a_link(sqlite: Stage, undone: Undone) -> None:
    seen: list[Any] = []

    async def play(database: ClockedDatabase, story: Story) -> None:
        await play_in_order(database, story)
        seen.append({identity: await effective(database, identity) for identity in IDENTITIES})

    sqlite.play(lambda database: play(database, undone.linked))
    sqlite.play(lambda database: play(database, undone.unlinked))
    with_link, without_link = seen
    assert with_link == without_link


async def effective(database: Database, identity: Identity) -> Any:
    """Whom an identity belongs to, and its visible lines."""
    async with database.transaction() as connection:
        row = await find_customer(connection, identity)
        if row is None:
            return identity, {}
        owner = row.identity if row.owner is None else (await names_of(connection, [row.owner]))[row.owner]
        shown = await find_lines(connection, row.id, LATEST, LineFilter(refusals=True))
    return owner, passages_of(shown)


@examples(50, least=20)
@given(story=imports)
def test_an_import_tells_nobody(sqlite: Stage, story: Story) -> None:
    async def play(database: ClockedDatabase) -> None:
        await play_in_order(database, story)
        # Whoever hears that something is not coming after all, and never heard that it was, loses nothing.
        heard = [one for one in await changes_of(database) if not one["muted"] and not one.get("withdrawn")]
        assert heard == []

    sqlite.play(play)
