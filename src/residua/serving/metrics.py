"""What a server counts, for Prometheus: requests, how long they took, batches, and rows of each memory."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from residua.serving.service import Service

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The figures of one service."""

    def __init__(self, service: Service):
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "residua_requests", "Requests answered", ["route", "tenant", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "residua_request_seconds",
            "From a request to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        batches = Histogram("residua_batch_rows", "Rows predicted together", buckets=_SIZES, registry=self._registry)
        service.predicting.sizes = batches.observe
        waiting = Gauge("residua_waiting", "Requests that wait, or are being answered", registry=self._registry)
        waiting.set_function(lambda: service.waiting)
        rows = Gauge("residua_memory_rows", "Remembered rows", ["tenant"], registry=self._registry)
        for name, tenant in service.tenants.items():
            rows.labels(name).set_function(lambda held=tenant.memory: len(held))

    def answered(self, route: str, tenant: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, tenant, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
