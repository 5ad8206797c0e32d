"""Keeps a library up to date with folders as their files change."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import Change, watch

from indexer.library import Library
from indexer.pending_model import PendingModel
from indexer.pipeline import IndexSummary, index_folders
from indexer.progress import Progress
from indexer.scan import outermost
from indexer.suffixes import is_supported

if TYPE_CHECKING:
    from indexer.model import Model

_QUIET = 1_000
"""Milliseconds. A burst of changes, like a card that is being copied, is one run: it starts when nothing more has
changed for so long…"""
_LONGEST_BURST = 15_000
"""…or when the burst has lasted so long."""
_TICK = 500
"""Milliseconds after which `stop` is noticed."""


def watch_folders(
    library: Library,
    model: "Model | PendingModel",
    folders: Sequence[Path],
    *,
    on_summary: Callable[[IndexSummary], None],
    stop: threading.Event,
    on_progress: Callable[[Progress], None] = lambda _: None,
    workers: int | None = None,
) -> None:
    """Index folders, then index those again in which something changes, until ``stop`` is set or Ctrl-C.

    ``on_summary`` gets the summary of every run. A folder that is not mounted at the start is not watched. Raises as
    `indexer.pipeline.index_folders`.
    """
    roots = outermost(folders)
    due = roots
    # The watch is on before the first run, which would miss what changes behind its back; the first tick starts it.
    for changes in watch(
        *(root for root in roots if root.is_dir()),
        watch_filter=lambda _, path: _concerns_photos(Path(path), library.directory),
        debounce=_LONGEST_BURST,
        step=_QUIET,
        rust_timeout=_TICK,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
    ):
        due = due or _changed(roots, changes)
        if due:
            on_summary(index_folders(library, model, due, on_progress=on_progress, cancelled=stop, workers=workers))
        due = []


def _concerns_photos(path: Path, library: Path) -> bool:
    if path.is_relative_to(library):
        return False
    # What is gone may have been a folder of photos.
    return is_supported(path) or not path.is_file()


def _changed(roots: Sequence[Path], changes: set[tuple[Change, str]]) -> list[Path]:
    return [root for root in roots if any(Path(path).is_relative_to(root) for _, path in changes)]
