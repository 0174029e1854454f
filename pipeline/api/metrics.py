"""What the service counts of itself, as Prometheus reads it."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

from pipeline.account import percentiles

RECENT = 1000  # requests whose times are kept for percentiles
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one service, in a registry of its own.

    Parameters
    ----------
    state : callable
        Gives what is read at the time of a scrape: gauges by name, and ``model``, a digest. A
        gauge with labels is a mapping from their values to numbers, under ``name(label,label)``.
    """

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self.registry = CollectorRegistry()
        of = self.registry
        route = ("method", "route")
        self.requests = Counter("sieve_requests", "Requests.", (*route, "status"), registry=of)
        self.seconds = Histogram(
            "sieve_request_seconds", "Time to the answer.", route, buckets=SECONDS, registry=of
        )
        self.signals = Counter("sieve_predicted", "Signals predicted.", ("status",), registry=of)
        self.batches = Histogram(
            "sieve_batch_requests", "Requests in a run.", buckets=(1, 2, 4, 8, 16, 32), registry=of
        )
        self.limited = Counter("sieve_rate_limited", "Requests beyond the rate.", registry=of)
        self.unknown = Counter("sieve_unauthorised", "Requests without a valid token.", registry=of)
        self.recent: deque[tuple[float, bool]] = deque(maxlen=RECENT)  # seconds, whether it failed
        self.open = Gauge("sieve_open_requests", "Requests under way.", registry=of)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_State(state))

    def answers(self) -> dict[str, Any]:
        """Milliseconds of the last answers, and the share that failed (5xx)."""
        known = list(self.recent)
        if not known:
            return {"requests": 0}
        spread = percentiles([1000 * seconds for seconds, _ in known])
        share = sum(failed for _, failed in known) / len(known)
        return {"requests": spread.pop("runs"), "error_rate": share, "milliseconds": spread}

    def text(self) -> bytes:
        """The text that a scrape reads."""
        return generate_latest(self.registry)


class _State:
    """Gauges that are looked up when they are asked for."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self.state = state

    def describe(self) -> list[Any]:
        return []  # nothing is looked up before the first scrape

    def collect(self) -> Iterator[Any]:
        found = self.state()
        model = InfoMetricFamily("sieve_model", "The model in service.")
        model.add_metric([], {"digest": found.pop("model")})
        yield model
        for name, value in found.items():
            if isinstance(value, Mapping):
                yield _labelled(name, value)
            elif value is not None:
                yield GaugeMetricFamily(f"sieve_{name}", name.replace("_", " "), value)


def _labelled(name: str, values: Mapping[tuple[str, ...], float | None]) -> GaugeMetricFamily:
    """Gauges of one name: ``lag_seconds(source)`` and the values by source."""
    plain, _, labels = name.rstrip(")").partition("(")
    family = GaugeMetricFamily(f"sieve_{plain}", plain.replace("_", " "), labels=labels.split(","))
    for key, value in values.items():
        if value is not None:
            family.add_metric(list(key), value)
    return family
