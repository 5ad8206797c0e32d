"""Progress on the terminal: a live bar, or a line now and then where there is none."""

import sys
import time
from typing import Protocol, Self

from ui._cli_output import note

_SECONDS_BETWEEN_LINES = 10.0


class ProgressView(Protocol):
    """Shows how far something is while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, stage: str, done: int, total: int | None, pace: str = "") -> None:
        """``total`` is None while nobody knows it."""


def progress_view() -> ProgressView:
    """A bar where standard error is a terminal, lines where it is not."""
    return _LiveBar() if sys.stderr.isatty() else _Lines()


class _LiveBar:
    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - in a pipe there is no bar
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
        )

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("Starting", total=None, pace="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, stage: str, done: int, total: int | None, pace: str = "") -> None:
        if stage == "done":  # until the next run, when a folder is watched
            self._bar.stop()
            return
        self._bar.start()
        self._bar.update(self._task, description=stage.capitalize(), total=total, completed=done, pace=pace)


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, stage: str, done: int, total: int | None, pace: str = "") -> None:
        now = time.monotonic()
        if done and now >= self._next:
            self._next = now + _SECONDS_BETWEEN_LINES
            counted = f"{done:,} so far" if total is None else f"{done:,} of {total:,}"
            note(", ".join(filter(None, (f"{stage}: {counted}", pace))))
