"""`/metrics`: what this process has done, for Prometheus. Counters begin at 0 with the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Metric, exposition
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

router = APIRouter(tags=["operate"])


class Figure(NamedTuple):
    """One counter: its name, what it counts, its labels, and its values by the values of these."""

    name: str
    description: str
    labels: tuple[str, ...]
    values: Mapping[Any, float]


Gather = Callable[[], Iterable[Figure]]
"""Reads figures, at once and without waiting for anything."""


class Metrics(Collector):
    """The figures of a process's parts."""

    def __init__(self, sources: Iterable[Gather] = ()) -> None:
        self._sources = tuple(sources)
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for gather in self._sources:
            for name, description, labels, values in gather():
                metric = CounterMetricFamily(f"lifecycle_engine_{name}", description, labels=labels)
                for key, value in values.items():
                    metric.add_metric(key, value)
                yield metric


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="What this process has done",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus"}},
)
def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format. A process without the role `api` has them at `LIFECYCLE_HEALTH_LISTEN`."""
    gathered: Metrics = request.app.state.metrics
    encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
    return Response(encode(gathered.registry), media_type=content_type)
