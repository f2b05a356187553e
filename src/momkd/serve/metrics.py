"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from momkd.serve.process import WorkerProcess

# From a tile to a large upload, in seconds.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The numbers of one service, in a registry of their own."""

    def __init__(self, *workers: WorkerProcess) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "momkd_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "momkd_request_seconds", "Time to an answer", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self._jobs = Counter("momkd_jobs", "Slides explained, by how it ended", ["state"], registry=self.registry)
        numbers: tuple[tuple[str, str, Callable[[WorkerProcess], float]], ...] = (
            ("momkd_worker_alive", "Whether the worker process lives", lambda worker: float(worker.alive)),
            ("momkd_worker_waiting", "Tasks in line", lambda worker: float(worker.waiting)),
            ("momkd_worker_restarts", "How often it was started again", lambda worker: float(worker.restarts)),
        )
        for name, what, value in numbers:
            gauge = Gauge(name, what, ["worker"], registry=self.registry)
            for worker in workers:
                gauge.labels(worker.name).set_function(partial(value, worker))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is its pattern, so that ids make no new series."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def job_ended(self, state: str) -> None:
        """Count a job."""
        self._jobs.labels(state).inc()

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)
