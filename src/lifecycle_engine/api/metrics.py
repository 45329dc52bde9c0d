"""`/metrics`: what this process has done and sees, for Prometheus. Counters begin at 0 with the process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Metric, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

from lifecycle_engine.runners import Figure, Gather, Histogram

router = APIRouter(tags=["operate"])


class Metrics(Collector):
    """The figures of a process's parts."""

    def __init__(self, sources: Iterable[Gather] = ()) -> None:
        self._sources = tuple(sources)
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for gather in self._sources:
            yield from map(_metric, gather())


def _metric(figure: Figure | Histogram) -> Metric:
    name = f"lifecycle_engine_{figure.name}"
    if isinstance(figure, Histogram):
        histogram = HistogramMetricFamily(name, figure.description)
        histogram.add_metric((), figure.buckets, figure.total)
        return histogram
    family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    metric = family(name, figure.description, labels=figure.labels)
    for key, value in figure.values.items():
        metric.add_metric(key, value)
    return metric


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
