"""What the server counts, for Prometheus: requests, the queue, and whether inputs drift.

Answers by name, their confidence, the share of unknown ones and the distance to the training rows
show that inputs have changed, before anyone knows that answers are wrong.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from headstart.serving.scoring import ScoredExample

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
CONFIDENCES = tuple(n / 20 for n in range(1, 21))
DISTANCES = tuple(n / 20 for n in range(1, 41))  # on the unit sphere: 0 to 2
SIZES = (1, 2, 4, 8, 16, 32, 64)
MOST_NAMES = 200  # of answers that are counted one by one; each is a series of Prometheus
OTHERS = "(others)"


class Measures:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        model = ("model",)
        self._requests = Counter(
            "headstart_requests", "requests by route and status", ("route", "status"), registry=own
        )
        self._seconds = Histogram(
            "headstart_request_seconds", "from a request to its answer", ("route",),
            buckets=SECONDS, registry=own,
        )  # fmt: skip
        self.refused = Counter(
            "headstart_queue_full", "requests refused as the queue was full", model, registry=own
        )
        self.waiting = Gauge(
            "headstart_queue_examples", "examples that wait for a model", model, registry=own
        )
        self.batches = Histogram(
            "headstart_batch_examples", "examples that the network was given at once", model,
            buckets=SIZES, registry=own,
        )  # fmt: skip
        self._answers = Counter(
            "headstart_answers", "answers by name, unknown ones too", ("model", "answer"),
            registry=own,
        )  # fmt: skip
        self._unknown = Counter(
            "headstart_unknown", "examples called unknown, by reason", ("model", "reason"),
            registry=own,
        )  # fmt: skip
        self._confidence = Histogram(
            "headstart_confidence", "score of the answer", model, buckets=CONFIDENCES, registry=own
        )
        self._distance = Histogram(
            "headstart_distance", "distance to the training rows, 0 to 2", model,
            buckets=DISTANCES, registry=own,
        )  # fmt: skip
        self._values = Summary(
            "headstart_value", "numbers that were predicted", model, registry=own
        )
        self._unreadable = Counter(
            "headstart_unreadable", "examples that can't be read", model, registry=own
        )
        self.model = Gauge(
            "headstart_model", "1 for the version that answers", ("model", "version"), registry=own
        )
        self.limit = Gauge(
            "headstart_distance_limit", "distance above which an input is unknown", model,
            registry=own,
        )  # fmt: skip
        self.loads = Counter(
            "headstart_loads", "versions loaded, and those refused", ("model", "result"),
            registry=own,
        )  # fmt: skip
        self._names: dict[str, set[str]] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answered(self, model: str, scored: "Iterable[ScoredExample]") -> None:
        """Count the answers of a model."""
        for one in scored:
            for name in one.names:
                self._answers.labels(model, self._counted(model, name)).inc()
            if one.value is not None:
                self._values.labels(model).observe(one.value)
            if one.confidence is not None:
                self._confidence.labels(model).observe(one.confidence)
            if one.distance is not None:
                self._distance.labels(model).observe(one.distance)
            if one.doubt:
                self._unknown.labels(model, "unlike" if one.unlike else "unsure").inc()

    def unreadable(self, model: str) -> None:
        self._unreadable.labels(model).inc()

    def text(self) -> bytes:
        """Return the metrics in Prometheus' format."""
        return generate_latest(self.registry)

    def _counted(self, model: str, name: str) -> str:
        known = self._names.setdefault(model, set())
        if name not in known and len(known) >= MOST_NAMES:
            return OTHERS
        known.add(name)
        return name
