"""Keeps a cache on disk within a number of bytes."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_LEEWAY = 0.1
"""Share of the budget that may be written before the files are counted again: counting a million takes seconds."""


class ByteBudget:
    """Keeps the files below a directory within a number of bytes: those used longest ago go first.

    A file's modification time says when it was last used. Safe to use from several threads. Several processes that
    write there exceed the budget by a tenth for each but the first, at most.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._uncounted: int | None = None

    def used_now(self, path: Path) -> None:
        """Note that a file is of use."""
        now = time.time_ns()
        with contextlib.suppress(OSError):
            os.utime(path, ns=(now, now))

    def written(self, size: int, limit: int) -> None:
        """``size`` bytes were written: see to it that no more than ``limit`` are there."""
        with self._lock:
            if self._uncounted is not None:
                self._uncounted += size
            if self._uncounted is None or self._uncounted >= limit * _LEEWAY:
                self._make_room(limit)

    def keep_within(self, limit: int) -> None:
        """Delete what was used longest ago, until what is left may grow by the leeway and be within ``limit`` bytes."""
        with self._lock:
            self._make_room(limit)

    def _make_room(self, limit: int) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - limit * (1 - _LEEWAY)
        for _, size, path in files:
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 (a path of a million is a string)
                excess -= size
        self._uncounted = 0

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """When each was used, its bytes and its path; not what is being written, whose name begins with a dot."""
        for directory, _, names in os.walk(self._directory):
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118
                with contextlib.suppress(OSError):
                    if not name.startswith("."):
                        stat = os.stat(path)  # noqa: PTH116
                        yield stat.st_mtime_ns, stat.st_size, path
