"""Runs of one process, and what they take over from one another."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.last_run import LastRun
from indexer.library import Library
from indexer.model import Model, ModelIdentity
from indexer.pipeline import IndexSummary, index_folders
from indexer.scan import scan_folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/broken.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.create(tmp_path / "library") as library:
        yield library


@pytest.fixture
def index(library: Library, model: Model, photos: Path) -> Callable[[LastRun], IndexSummary]:
    return lambda last: index_folders(library, model, [photos], workers=1, last=last)


def quiet(last: LastRun, library: Library, photos: Path) -> bool:
    """Whether the folder is known to have no changes, without a look at what is recorded of its files."""
    with library.writer() as writer:
        return last.changes(photos, writer.version(), scan_folder(photos, library.directory)) is not None


def outcomes(summary: IndexSummary) -> tuple[int, int, int, int]:
    return summary.added, summary.unchanged, summary.removed, summary.failed


def test_a_folder_without_changes_is_known_again(
    index: Callable[[LastRun], IndexSummary], library: Library, photos: Path
) -> None:
    last = LastRun()
    assert outcomes(index(last)) == (3, 0, 0, 1)
    assert not quiet(last, library, photos)
    for _ in range(2):
        assert outcomes(index(last)) == (0, 3, 0, 1)
        assert quiet(last, library, photos)
    (photos / "0.png").touch()
    assert not quiet(last, library, photos)


def test_what_another_process_changed_is_seen(
    index: Callable[[LastRun], IndexSummary], library: Library, photos: Path
) -> None:
    last = LastRun()
    index(last)
    index(last)
    with Library.open(library.directory) as other, other.writer() as writer:
        (folder,) = writer.folders()
        writer.mark_missing([writer.known_files(folder)["1.png"].photo_id])
    assert not quiet(last, library, photos)
    assert outcomes(index(last)) == (1, 2, 0, 1)


def test_photos_that_are_left_as_they_are_are_told_of_again(
    index: Callable[[LastRun], IndexSummary], photos: Path
) -> None:
    last = LastRun()
    index(last)
    index(last)
    for number in range(3):
        (photos / f"{number}.png").unlink()
    for _ in range(2):
        (note,) = index(last).notes
        assert "3 of 4 photos" in note


def test_another_model_looks_at_all_pictures(
    index: Callable[[LastRun], IndexSummary], library: Library, model: Model, photos: Path
) -> None:
    class Other:
        identity = ModelIdentity("other", "1", "0" * 64)

        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

    last = LastRun()
    assert index(last).embedded == 3
    assert index(last).embedded == 0
    assert index_folders(library, Other(), [photos], workers=1, last=last).embedded == 3  # type: ignore[arg-type]
