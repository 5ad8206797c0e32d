"""Watching folders."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import IndexSummary
from indexer.watch import watch_folders

_PATIENCE = 60


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "one", tmp_path / "two"]
    for folder in found:
        folder.mkdir()
        Image.new("RGB", (8, 8), "red").save(folder / f"first in {folder.name}.png")
    return found


@pytest.fixture
def summaries(model: Model, folders: list[Path]) -> Iterator["queue.Queue[IndexSummary]"]:
    """Summaries of what a thread does that watches the folders; the library is inside one of them."""
    done: queue.Queue[IndexSummary] = queue.Queue()
    stop = threading.Event()
    with Library.create(folders[0] / "library") as library:
        thread = threading.Thread(
            target=watch_folders,
            args=(library, model, folders),
            kwargs={"on_summary": done.put, "stop": stop, "workers": 1},
        )
        thread.start()
        yield done
        stop.set()
        thread.join(_PATIENCE)
        assert not thread.is_alive()


def test_a_first_run_then_one_for_each_burst_of_changes(
    summaries: "queue.Queue[IndexSummary]", folders: list[Path], tmp_path: Path
) -> None:
    first = summaries.get(timeout=_PATIENCE)
    assert (first.added, first.embedded) == (2, 1)

    for n in range(3):
        Image.new("RGB", (8, 8), (n, n, n)).save(folders[1] / f"{n}.png")
    burst = summaries.get(timeout=_PATIENCE)
    # Of the second folder alone: the first has a photo too, which would count as unchanged.
    assert (burst.added, burst.unchanged) == (3, 1)

    (folders[1] / "notes.txt").write_text("Not a photo.")
    (folders[0] / "deep").mkdir()
    (folders[1] / "0.png").rename(folders[0] / "deep" / "moved.png")
    moved = summaries.get(timeout=_PATIENCE)
    assert (moved.moved, moved.added, moved.removed) == (1, 0, 0)

    (folders[0] / "deep").rename(tmp_path / "away")
    assert summaries.get(timeout=_PATIENCE).removed == 1
    assert summaries.empty()
