"""Indexing jobs: one at a time, in a thread of its own, watched from the event loop."""

import asyncio
import dataclasses
import datetime
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from indexer.errors import PhotoSeekError
from indexer.progress import Progress, Stage
from search.service._errors import RequestRefused
from search.service._logs import log_event
from search.service._metrics import OUTCOMES, Metrics

if TYPE_CHECKING:
    from indexer.pipeline import IndexSummary

JobState = Literal["running", "done", "cancelled", "failed"]
Index = Callable[[tuple[Path, ...], Callable[[Progress], None], threading.Event], "IndexSummary"]
"""Indexes folders, reporting progress, until done or until the event is set."""

_REMEMBERED = 100
"""Finished jobs that can still be asked for."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Job:
    """One indexing job. Changed by the event loop's thread only."""

    id: str
    folders: tuple[Path, ...]
    started_at: datetime.datetime
    state: JobState = "running"
    finished_at: datetime.datetime | None = None
    progress: Progress | None = None
    summary: "IndexSummary | None" = None
    error: str | None = None
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)
    watchers: set[asyncio.Event] = dataclasses.field(default_factory=set)

    async def changes(self) -> AsyncIterator[Progress]:
        """The progress now, and each later one as it happens, until the job ends. A slow reader skips some."""
        changed = asyncio.Event()
        self.watchers.add(changed)
        try:
            seen = None
            while True:
                if self.progress is not None and self.progress is not seen:
                    seen = self.progress
                    yield seen
                elif self.state != "running":
                    return
                else:
                    changed.clear()
                    await changed.wait()
        finally:
            self.watchers.discard(changed)

    def notify(self) -> None:
        """Wake everyone who waits for a change."""
        for watcher in self.watchers:
            watcher.set()


class Jobs:
    """The jobs since the service started, the latest last. Used from the event loop, but for ``stop``."""

    def __init__(self, index: Index, metrics: Metrics) -> None:
        self._index = index
        self._metrics = metrics
        self._jobs: dict[str, Job] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._running: asyncio.Task[None] | None = None
        self._current: Job | None = None

    def all(self) -> list[Job]:
        return list(self._jobs.values())

    def get(self, job_id: str) -> Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise RequestRefused(404, "job_not_found", f"There is no job {job_id}.") from None

    def start(self, folders: tuple[Path, ...]) -> Job:
        """Start indexing; RequestRefused (409) while another job runs."""
        if self._current is not None and self._current.state == "running":
            message = f"The job {self._current.id} is running. Wait until it is done, or cancel it."
            raise RequestRefused(409, "job_running", message)
        job = Job(id=secrets.token_hex(8), folders=folders, started_at=_now())
        self._jobs[job.id] = self._current = job
        for old in list(self._jobs)[:-_REMEMBERED]:
            del self._jobs[old]
        self._running = asyncio.create_task(self._run(job))
        return job

    def stop(self) -> None:
        """Ask the running job to end. May be called from a signal handler."""
        if self._current is not None:
            self._current.cancelled.set()

    async def close(self) -> None:
        """Stop, and wait until what was being written is saved."""
        self.stop()
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    async def _run(self, job: Job) -> None:
        loop = asyncio.get_running_loop()

        def publish(progress: Progress) -> None:
            job.progress = progress
            job.notify()

        stages = _StageClock(self._metrics)

        def report(progress: Progress) -> None:
            stages.enter(progress.stage)
            loop.call_soon_threadsafe(publish, progress)

        log_event("job started", job=job.id, folders=len(job.folders))
        trouble: Exception | None = None
        try:
            summary = await loop.run_in_executor(self._thread, self._index, job.folders, report, job.cancelled)
            job.summary, job.state = summary, "cancelled" if summary.cancelled else "done"
            self._metrics.count_photos(summary)
        except PhotoSeekError as error:
            trouble, job.state, job.error = error, "failed", str(error)
        except Exception as error:
            trouble, job.state = error, "failed"
            job.error = "Something went wrong while indexing; the service's log says what."
        finally:
            job.finished_at = _now()
            job.notify()
        _tell_end(job, trouble)


class _StageClock:
    """Times the stages of a job as they are reported."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stage: Stage | None = None
        self._since = time.monotonic()

    def enter(self, stage: Stage) -> None:
        if stage == self._stage:
            return
        now = time.monotonic()
        if self._stage is not None:
            self._metrics.time_job(self._stage, now - self._since)
        self._stage, self._since = stage, now


def _tell_end(job: Job, trouble: Exception | None) -> None:
    level = logging.INFO if trouble is None else logging.ERROR
    counts = {} if job.summary is None else {name: getattr(job.summary, name) for name in OUTCOMES}
    log_event("job ended", level=level, error=trouble, job=job.id, state=job.state, **counts)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
