"""Random stories of a few customers, to be played through the engine: who names whom, what comes when, and how.

A story is a list of things that happen to a deployment, in the order in which they do. What its facts are, and under
which versions they are judged, does not depend on that order; what is recorded in the end must not, either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from hypothesis import strategies as st

from lifecycle_engine.lifecycle.touchpoints import LINK, MERGE, RETRACT, UNLINK, UNMERGE, Touchpoint
from lifecycle_engine.log.message import InvalidMessageError, decode
from tests.lives import Life
from tests.record import message
from tests.unit import strategies
from tests.unit.strategies import one_in

CUSTOMERS = ("c0", "c1", "c2", "c3")
ANONYMOUS = ("a0", "a1", "c0")
"""One of them has the value of a customer_id, with which it has nothing to do."""
PARTITIONS = 4


class Arrive(NamedTuple):
    """A batch of the log, all of one partition; `again`: two workers read it."""

    partition: int
    facts: tuple[Touchpoint, ...]
    muted: bool
    again: bool


class Activate(NamedTuple):
    """The lifecycle's next version takes effect, from `since` on (None: from the beginning of time), or it is retired,
    as the oracle's documents say it."""

    since: int | None
    document: Mapping[str, Any]


class PassTime(NamedTuple):
    """What is due before an instant takes effect, for customers who have no facts to come."""

    horizon: int


class CatchUp(NamedTuple):
    """Some customers are folded anew under the active definitions."""

    horizon: int
    customers: int


class Restart(NamedTuple):
    """The workers begin anew, and remember nothing."""


class Ask(NamedTuple):
    """Everything is asked, and the answers are kept; `as_of` are the instants of which it is asked."""

    as_of: tuple[int, ...]


Happening = Arrive | Activate | PassTime | CatchUp | Restart | Ask


class Story(NamedTuple):
    """What happens, in its order, and the last instant of all.

    `is_ahead` tells that it all lies ahead of the clock, so that nothing that falls due was past when it was set.
    """

    happenings: tuple[Happening, ...]
    now: int
    is_ahead: bool

    @property
    def facts(self) -> list[Touchpoint]:
        """All facts, some of them more than once."""
        return [fact for each in self.happenings if isinstance(each, Arrive) for fact in each.facts]

    def with_facts(self, change: Callable[[Touchpoint], Touchpoint | None]) -> Story:
        """The same with other facts in place of its own; None: with none."""
        happenings: list[Happening] = []
        for happening in self.happenings:
            if isinstance(happening, Arrive):
                facts = tuple([each for each in map(change, happening.facts) if each is not None])
                if facts:
                    happenings.append(happening._replace(facts=facts))
            else:
                happenings.append(happening)
        return self._replace(happenings=tuple(happenings))


class Undone(NamedTuple):
    """Two stories: one in which a pair is linked and in the end unlinked, and one in which nobody ever linked it."""

    linked: Story
    unlinked: Story


def story(rnd: Random, *, knots: Sequence[int] = (0, 2, 4, 8, 12), muted: bool | None = None) -> Story:
    """Of so many facts about identities as one of `knots` says; with batches `muted` or not, or some of them."""
    life = strategies.life(rnd)
    facts = [fact for fact in _named(rnd, life.facts) if is_taken(fact)]
    facts += _about_identities(rnd, facts, rnd.choice(knots))
    return _told(rnd, life, facts, muted)


def knot(rnd: Random) -> Story:
    """Mostly links and merges that overlap."""
    return story(rnd, knots=(12, 24))


def imported(rnd: Random) -> Story:
    """All of it muted, and past."""
    return story(rnd, muted=True)._replace(is_ahead=False)


def linked(rnd: Random) -> Story:
    """A pair is linked, and unlinked after all its links by the fact whose id is "k"."""
    life = strategies.life(rnd)
    facts = [fact for fact in _named(rnd, life.facts) if is_taken(fact)]
    facts += _about_identities(rnd, facts, rnd.choice((0, 2, 4, 8)))
    pair = rnd.choice(CUSTOMERS), rnd.choice(ANONYMOUS)
    facts += [Touchpoint(f"k{n}", "s", LINK, strategies.instant(rnd), *pair, {}, {}) for n in range(rnd.randint(1, 3))]
    last = max(fact.occurred_at for fact in facts if _pair(fact) == pair)
    facts.append(Touchpoint("k", "t", UNLINK, last + rnd.randint(1, strategies.DAY), *pair, {}, {}))
    return _told(rnd, life, facts, None)


def undone(linked: Story) -> Undone:
    (pair,) = {_pair(fact) for fact in linked.facts if fact.id == "k"}

    def without(fact: Touchpoint) -> Touchpoint | None:
        if _pair(fact) != pair:
            return fact
        return None if fact.type in (LINK, UNLINK) else fact._replace(anonymous_id=None)

    return Undone(linked, linked.with_facts(without))


def _pair(fact: Touchpoint) -> tuple[str | None, str | None]:
    return fact.customer_id, fact.anonymous_id


def _told(rnd: Random, life: Life, facts: Sequence[Touchpoint], muted: bool | None) -> Story:
    happenings: list[Happening] = list(_arrivals(rnd, facts, muted))
    for _ in range(rnd.choice((0, 1, 2, 4))):
        happenings.insert(rnd.randint(0, len(happenings)), _in_between(rnd))
    horizons = [each.horizon for each in happenings if isinstance(each, PassTime | CatchUp)]
    now = max([life.now, *horizons, *(fact.occurred_at for fact in facts)])
    for versions in life.lifecycles.values():
        place = 0
        for since, _, document in versions:
            # A lifecycle's versions take effect in their order; the first is mostly there from the start.
            place = rnd.randint(place, len(happenings)) if since is not None or one_in(rnd, 4) else 0
            happenings.insert(place, Activate(since, document))
            place += 1
    return Story(tuple(happenings), now, rnd.choice((False, True)))


def message_of(fact: Touchpoint, *, muted: bool = False) -> bytes:
    """The message of the log that brings a fact."""
    return message(
        fact.id,
        fact.type,
        fact.occurred_at,
        fact.customer_id,  # type: ignore[arg-type]
        anonymous_id=fact.anonymous_id,
        source=fact.source,
        properties=fact.properties,
        context=fact.context,
        muted=muted or None,
    )


def is_taken(fact: Touchpoint) -> bool:
    """The fold can take integers beyond 64 bits, and overrides of odd shapes; the log does not."""
    try:
        decode(message_of(fact))
    except InvalidMessageError:
        return False
    return True


def _named(rnd: Random, facts: Sequence[Touchpoint]) -> list[Touchpoint]:
    """The facts of one customer, dealt out to several, under the names that they have."""

    # The fewer they are, the longer is what happens to each.
    customers, anonymous = CUSTOMERS[: rnd.randint(1, 4)], ANONYMOUS[: rnd.randint(1, 3)]

    def named(fact: Touchpoint) -> Touchpoint:
        customer_id, anonymous_id = rnd.choice(customers), rnd.choice(anonymous)
        names = rnd.choice(((customer_id, None), (None, anonymous_id), (customer_id, anonymous_id)))
        return fact._replace(customer_id=names[0], anonymous_id=names[1])

    return [named(fact) for fact in facts]


def _about_identities(rnd: Random, facts: Sequence[Touchpoint], count: int) -> list[Touchpoint]:
    """Links, merges, and what undoes them; and retractions, also of what never comes."""
    found: list[Touchpoint] = []
    for number in range(count):
        type_ = rnd.choice((LINK, UNLINK, MERGE, MERGE, UNMERGE, RETRACT))
        customer_id, anonymous_id = rnd.choice(CUSTOMERS), None
        properties: dict[str, Any] = {}
        if type_ in (LINK, UNLINK):
            anonymous_id = rnd.choice(ANONYMOUS)
        elif type_ == MERGE:
            properties = {"into": rnd.choice([each for each in CUSTOMERS if each != customer_id])}
        elif type_ == RETRACT:
            known = [*facts, *found]
            source, id_ = ("s", "never") if not known or one_in(rnd, 12) else rnd.choice(known)[1::-1]
            properties = {"source": source, "id": id_}
        # Their ids sort before, among and after those of the others.
        id_ = rnd.choice(("0", "a", "z", "\uffff")) + f"i{number}"
        found.append(
            Touchpoint(
                id_, rnd.choice("st"), type_, strategies.instant(rnd), None if type_ == RETRACT else customer_id,
                anonymous_id, properties, {},
            )
        )  # fmt: skip
    return found


def _arrivals(rnd: Random, facts: Sequence[Touchpoint], muted: bool | None) -> list[Arrive]:
    """All facts, some of them twice, in any order or nearly in theirs, cut into batches."""
    again = [rnd.choice(facts) for _ in range(rnd.choice((0, 0, 2, 4)))] if facts else []
    arriving = [*facts, *again]
    order = rnd.choice(("sorted", "nearly", "any", "any"))
    if order == "any":
        rnd.shuffle(arriving)
    else:
        slack = 0 if order == "sorted" else 3 * strategies.DAY
        arriving.sort(key=lambda fact: (fact.occurred_at + rnd.randint(0, slack), fact.id))
    batches = []
    while arriving:
        size = rnd.randint(1, min(len(arriving), rnd.choice((1, 3, 8))))
        is_muted = one_in(rnd, 4) if muted is None else muted
        batches.append(Arrive(rnd.randrange(PARTITIONS), tuple(arriving[:size]), is_muted, one_in(rnd, 12)))
        arriving = arriving[size:]
    return batches


def _in_between(rnd: Random) -> Happening:
    kind = rnd.choice((PassTime, Ask, CatchUp, Restart))
    if kind is PassTime:
        return PassTime(_any_instant(rnd))
    if kind is CatchUp:
        return CatchUp(_any_instant(rnd), rnd.randint(1, 4))
    return Ask(tuple([_any_instant(rnd) for _ in range(2)])) if kind is Ask else Restart()


def _any_instant(rnd: Random) -> int:
    return strategies.START + rnd.randrange(2 * strategies.DAYS) * strategies.DAY + rnd.choice((0, 0, 1))


@st.composite
def thinned(draw: st.DrawFn, make: Callable[[Random], Story]) -> Story:
    """Stories from plain randomness, of which Hypothesis leaves out a little, and as much as it can when it shrinks.

    The unlink that undoes stays, and a lifecycle's versions go from the last one on.
    """

    def is_left() -> bool:
        return draw(st.integers(0, 15)) > 0

    full = make(Random(draw(st.integers(0, 2**32 - 1))))
    fewer = full.with_facts(lambda fact: fact if fact.id == "k" or is_left() else None)
    kept: list[Happening] = []
    needed: set[str] = set()
    for happening in reversed(fewer.happenings):
        if isinstance(happening, Activate):
            key = happening.document["lifecycle"]
            if key not in needed and not is_left():
                continue
            needed.add(key)
        elif not isinstance(happening, Arrive) and not is_left():
            continue
        kept.append(happening)
    return fewer._replace(happenings=tuple(kept[::-1]))


stories = thinned(story)
knots = thinned(knot)
imports = thinned(imported)
undoings = thinned(linked).map(undone)
