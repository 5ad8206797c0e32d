"""What ``/metrics`` tells."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.service._logs import log_event
from search.service._settings import PROBES

if TYPE_CHECKING:
    from indexer.pipeline import IndexSummary

_MOMENTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_JOBS = (0.1, 1, 10, 60, 300, 1800, 3600, 4 * 3600, 24 * 3600)
OUTCOMES = ("added", "updated", "moved", "unchanged", "removed", "failed")
"""What a job tells of photos, as `IndexSummary` counts them."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """Counters and histograms of one service, apart from those of any other in the process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "photoseek_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._times = Histogram(
            "photoseek_request_seconds",
            "Time until a request is answered, without jobs' event streams.",
            ("route",),
            buckets=_MOMENTS,
            registry=registry,
        )
        self.in_progress = Gauge("photoseek_requests_in_progress", "Requests not answered yet.", registry=registry)
        self._stages = Histogram(
            "photoseek_search_seconds",
            "Time of each stage of a search; queue: until one of the threads was free.",
            ("stage",),
            buckets=_MOMENTS,
            registry=registry,
        )
        self._job_stages = Histogram(
            "photoseek_index_seconds", "Time of each stage of a job.", ("stage",), buckets=_JOBS, registry=registry
        )
        self._photos = Counter("photoseek_indexed_photos", "Photos of jobs.", ("outcome",), registry=registry)

    def count_request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """One answer; seconds is None when how long it took says nothing."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._times.labels(route).observe(seconds)

    def time_search(self, waited: float, took_ms: Mapping[str, float]) -> None:
        """One search, and how many seconds it waited for its turn."""
        self._stages.labels("queue").observe(waited)
        for stage, milliseconds in took_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def time_job(self, stage: str, seconds: float) -> None:
        """One stage of an indexing job."""
        self._job_stages.labels(stage).observe(seconds)

    def count_photos(self, summary: "IndexSummary") -> None:
        """What a job did."""
        for outcome in OUTCOMES:
            self._photos.labels(outcome).inc(getattr(summary, outcome))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class RequestObserver:
    """ASGI middleware: counts, times and logs requests by route, never by path, so that their number stays bounded."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.in_progress.track_inprogress():
            try:
                await self._app(scope, receive, send_observed)
            except Exception:
                status = status or 500  # which is answered further out
                raise
            finally:
                self._tell(scope, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        timed = not route.endswith("/events")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.count_request(method, route, status, seconds if timed else None)
        if scope["path"] in PROBES:  # every few seconds, and nothing to learn from
            return
        client = scope["client"][0] if scope.get("client") else None
        log_event("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1), client=client)
