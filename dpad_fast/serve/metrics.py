"""What a server tells Prometheus."""

from __future__ import annotations

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.types import ScoreBatch

ENDPOINTS = ("/score", "/openrlhf", "/slime", "/pictures", "/config", "/healthz", "/metrics")
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = {"registry": self.registry}
        self._requests = Counter("dpad_requests", "requests answered", ("endpoint", "status"), **kept)
        self._request_s = Histogram(
            "dpad_request_seconds", "from a request's head to its answer", ("endpoint",), buckets=_SECONDS, **kept
        )
        self._batch_rows = Histogram("dpad_batch_rows", "rows of a call of the scorer", buckets=_ROWS, **kept)
        self._batch_s = Histogram("dpad_batch_seconds", "seconds of a call of the scorer", buckets=_SECONDS, **kept)
        self._stage_s = Counter("dpad_stage_seconds", "seconds by the scorer's stage", ("stage",), **kept)
        self._rows = Counter("dpad_rows", "rows by what came of them", ("outcome",), **kept)
        self._malformed = Counter("dpad_malformed", "completions that could not be read", **kept)
        self._failures = Counter("dpad_scorer_failures", "calls in which the scorer itself failed", **kept)
        self.queue = Gauge("dpad_queue_rows", "rows accepted and not yet answered", **kept)
        self.pictures = Gauge("dpad_pictures", "pictures that are kept", **kept)
        self.picture_bytes = Gauge("dpad_picture_bytes", "bytes of the pictures that are kept", **kept)
        self.held = Gauge("dpad_held_bytes", "bytes of bodies and pictures of requests in flight", **kept)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request; paths that are no endpoint count as one, so that nobody makes this grow."""
        endpoint = path if path in ENDPOINTS else "/pictures" if path.startswith("/pictures/") else "other"
        self._requests.labels(endpoint, str(status)).inc()
        self._request_s.labels(endpoint).observe(seconds)

    def batch(self, rows: int, seconds: float, scores: ScoreBatch | None) -> None:
        """Counts a call of the scorer; the `observe` of a `MicroBatcher`."""
        self._batch_rows.observe(rows)
        self._batch_s.observe(seconds)
        if scores is None:
            self._failures.inc()
            return
        unscored = int(torch.isnan(scores.total).sum())
        self._rows.labels("scored").inc(rows - unscored)
        self._rows.labels("unscored").inc(unscored)
        self._malformed.inc(sum(reason in MALFORMED for reason in scores.reasons))
        for stage, taken in scores.timings.items():
            self._stage_s.labels(stage).inc(taken)

    def text(self) -> bytes:
        """All of it, in Prometheus's own form."""
        found: bytes = generate_latest(self.registry)
        return found
