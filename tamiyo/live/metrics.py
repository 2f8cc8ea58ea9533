"""Count and measure for `/metrics`, as Prometheus reads it."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tamiyo.live.decider import Answer
from tamiyo.live.limits import State

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_STATES: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}
_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 60.0, 100.0, 250.0, 1000.0)


class Metrics:
    """Metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.messages = self._counter("oona_messages", "Messages by stream, type and outcome.", "stream", "type", "outcome")
        self.quarantined = self._counter("oona_quarantined", "Messages put into quarantine, by reason.", "reason")
        self.answers = self._counter("answers", "Packets answered, by what was done and why.", "route", "reason")
        self.duplicates = self._counter("duplicates", "Packets that were answered before.")
        self.published = self._counter("oona_published", "Entries published, by stream.", "stream")
        self.swaps = self._counter("swaps", "Bundles that were taken or refused.", "outcome")
        self.bus_faults = self._counter("oona_faults", "Times that Redis or a disk failed in the loop.")
        self.segments = self._counter("segments_closed", "Segments that became exports.")
        meaning = "Time of each stage of a decision in milliseconds."
        self.latency = Histogram("tamiyo_latency_ms", meaning, ["stage"], buckets=_BUCKETS, registry=self._registry)
        self.ready = self._gauge("ready", "1 if a bundle serves and Oona is reached.")
        self.breaker = self._gauge("breaker_state", "0 closed, 1 half open, 2 open.", "breaker")
        self.lag = self._gauge("oona_lag", "Entries that were not read yet, by stream.", "stream")
        self.metadata_age = self._gauge("metadata_age_seconds", "Age of the metadata that decisions use.")
        self.bundle = self._gauge("bundle_info", "1 for the bundle that serves.", "build_id")
        self.fallbacks = self._gauge("compile_fallbacks", "Failures of torch.compile in this process.")

    def answered(self, answer: Answer) -> None:
        """Count one answer and its stages."""
        self.answers.labels(route=answer.route, reason=answer.reason).inc()
        for stage, took in answer.stages_ms.items():
            self.latency.labels(stage=stage).observe(took)
        self.latency.labels(stage="answer").observe(answer.latency_ms)

    def set_breaker(self, name: str, state: State) -> None:
        """Show the state of a breaker."""
        self.breaker.labels(breaker=name).set(_STATES[state])

    def text(self) -> bytes:
        """Return the exposition."""
        return bytes(generate_latest(self._registry))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"tamiyo_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"tamiyo_{name}", meaning, labels, registry=self._registry)
