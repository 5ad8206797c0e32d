"""How far an indexing run is: one stream of events for the terminal, the HTTP job and the web page."""

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

Stage = Literal["scanning", "indexing", "saving", "done"]

_WINDOW = 15.0
"""Seconds over which the rate is taken: long enough to be steady, short enough to follow a slower disk."""
_BETWEEN_EVENTS = 0.2
"""Seconds between two events of one stage."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """One event."""

    stage: Stage
    total: int
    """Photos that this run has to read; while scanning, files seen so far. Unchanged photos are not among them."""
    done: int
    """Of them: photos that are recorded, as indexed or as failed."""
    failed: int
    """Of the done ones."""
    photos_per_second: float
    """Over the last seconds; 0 before anything is done."""
    seconds_left: float | None
    """None as long as nothing can be said."""
    current: str | None
    """Path of a photo that was just recorded, or of the folder that is being scanned."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


class ProgressMeter:
    """Counts, and reports now and then."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._stage: Stage = "scanning"
        self._total = self._done = self._failed = 0
        self._current: str | None = None
        self._reported_at = -_BETWEEN_EVENTS
        self._recent: collections.deque[tuple[float, int]] = collections.deque()

    def enter(self, stage: Stage, total: int | None = None) -> None:
        """Begin a stage; reports at once."""
        self._stage = stage
        if total is not None:
            self._total = total
        self._recent.append((time.monotonic(), self._done))
        self._emit()

    def scanned(self, files: int, folder: str) -> None:
        """That many files have been seen so far."""
        self._total, self._current = files, folder
        self._emit_if_due()

    def recorded(self, photos: int, failed: int, current: str) -> None:
        """So many more photos are done, so many of them failed."""
        self._done += photos
        self._failed += failed
        self._current = current
        now = time.monotonic()
        self._recent.append((now, self._done))
        while len(self._recent) > 2 and self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        self._emit_if_due()

    def _emit_if_due(self) -> None:
        if time.monotonic() - self._reported_at >= _BETWEEN_EVENTS:
            self._emit()

    def _emit(self) -> None:
        self._reported_at = time.monotonic()
        rate = self._rate()
        left = (self._total - self._done) / rate if rate and self._stage == "indexing" else None
        self._report(Progress(self._stage, self._total, self._done, self._failed, rate, left, self._current))

    def _rate(self) -> float:
        if len(self._recent) < 2:
            return 0.0
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if now > then else 0.0
