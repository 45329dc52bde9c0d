"""What the parts of a process have done and see, as `/metrics` tells it."""

from __future__ import annotations

from collections.abc import Iterable

from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.timers import Timers
from lifecycle_engine.engine.worker import Worker
from lifecycle_engine.feed.sequencer import Sequencer
from lifecycle_engine.runners import Figure, Histogram
from lifecycle_engine.webhook.dispatch import Dispatcher


def of_worker(worker: Worker) -> Iterable[Figure]:
    """What a worker has done."""
    done = worker.done
    yield Figure("records", "Records of the log that were applied or set aside", (), {(): done.records})
    yield Figure("facts_accepted", "Facts whose id was new", (), {(): done.accepted})
    yield Figure("facts_late", "Facts that came after one that sorts behind them", (), {(): done.late})
    yield Figure("dead_letters", "Records that were set aside as they cannot be processed", (), {(): done.dead})


def of_timers(timers: Timers) -> Iterable[Figure]:
    """What the timers have done."""
    name, description = "customers_worked_through", "Customers for whom something fell due though no fact came"
    yield Figure(name, description, (), {(): timers.worked_through})


def of_sequencer(sequencer: Sequencer) -> Iterable[Figure]:
    """What the sequencer has done."""
    yield Figure(
        "changes_sequenced", "Changes that were given their position in the feed", (), {(): sequencer.sequenced}
    )


def of_dispatcher(dispatcher: Dispatcher) -> Iterable[Figure | Histogram]:
    """What a dispatcher has done, and what waits for all of them."""
    done, depth = dispatcher.done, dispatcher.depth
    yield Figure(
        "webhook_attempts",
        "Attempts at deliveries, by what came of them; `ours` are failures of our own, which spend nothing",
        ("outcome",),
        {(outcome,): count for outcome, count in done.attempts.items()},
    )
    yield Figure(
        "webhook_deliveries",
        "Deliveries that came to an end here, by how: delivered, or why not",
        ("outcome",),
        {(outcome,): count for outcome, count in done.deliveries.items()},
    )
    yield Histogram(
        "webhook_first_attempt_seconds",
        "From a change's commit to the first attempt to tell of it",
        list(done.first_attempts.buckets()),
        done.first_attempts.total,
    )
    waiting = sum(depth.pending.values())
    yield Figure(
        "webhook_deliveries_pending", "Deliveries that are pending, of all dispatchers", (), {(): waiting}, "gauge"
    )
    yield Figure(
        "webhook_endpoints_parked",
        "Endpoints that fail so often that they are only probed, of all dispatchers",
        (),
        {(): len(depth.parked)},
        "gauge",
    )


def of_guards(definitions: Definitions) -> Iterable[Figure]:
    """What guards could not answer."""
    description = (
        "Guards that erred on the values that they were asked about, and so did not hold; each time that they are asked"
    )
    yield Figure("guard_errors", description, ("lifecycle", "version"), definitions.guard_errors())
