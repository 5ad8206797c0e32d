"""A disk that is full, read-only, or gone: one clear error, and a library that works again when the cause is gone."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import LibraryError, LibraryNotFound
from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from indexer.progress import Progress
from tests.disks import no_file_larger_than, remount

_PHOTOS = 40


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(_PHOTOS):
        noise = np.random.default_rng(n).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{n:02}.png")
    return folder


def index(directory: Path, model: Model, photos: Path, on_progress: Callable[[Progress], None] = lambda _: None) -> int:
    """How many photos there are after a run."""
    with Library.create(directory) as library:
        index_folders(library, model, [photos], workers=1, on_progress=on_progress)
        assert library.verify().ok
        query = np.eye(1, 256, dtype=np.float32)[0]
        assert len(library.nearest(query, 100)) == library.status().photos
        return library.status().photos


def test_a_full_disk(disk: Path, photos: Path, model: Model) -> None:
    with pytest.raises(LibraryError, match=r"is full|could not be written"):
        index(disk / "library", model, photos)
    with Library.open(disk / "library") as library:
        kept = library.status().photos
        assert library.nearest(np.eye(1, 256, dtype=np.float32)[0], 100)[:1] == [] or kept
    remount(disk, "size=100m")
    assert index(disk / "library", model, photos) == _PHOTOS


def test_a_quota(tmp_path: Path, photos: Path, model: Model) -> None:
    with no_file_larger_than(400_000), pytest.raises(LibraryError, match=r"catalog\.sqlite|vectors\.faiss"):
        index(tmp_path / "library", model, photos)
    assert index(tmp_path / "library", model, photos) == _PHOTOS


def test_a_disk_that_is_read_only(disk: Path, photos: Path, model: Model) -> None:
    remount(disk, "size=100m")
    (photos / "00.png").rename(photos.parent / "00.png")
    assert index(disk / "library", model, photos) == _PHOTOS - 1
    (photos.parent / "00.png").rename(photos / "00.png")
    remount(disk, "ro")
    with pytest.raises(LibraryError, match=r"cannot be (opened for writing|written to)"):
        index(disk / "library", model, photos)
    with pytest.raises(LibraryError, match="cannot be made"):
        Library.create(disk / "other")
    remount(disk, "rw")
    assert index(disk / "library", model, photos) == _PHOTOS


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, photos: Path, model: Model) -> None:
    tmp_path.joinpath("closed").mkdir(mode=0o500)
    with pytest.raises(LibraryError, match="cannot be made"):
        index(tmp_path / "closed" / "library", model, photos)
    tmp_path.joinpath("closed").chmod(0o700)
    assert index(tmp_path / "closed" / "library", model, photos) == _PHOTOS


def test_a_library_that_is_deleted_while_it_is_written(tmp_path: Path, photos: Path, model: Model) -> None:
    def delete(progress: Progress) -> None:
        if progress.stage == "indexing":
            shutil.rmtree(tmp_path / "library", ignore_errors=True)

    with pytest.raises(LibraryNotFound, match="photoseek index FOLDER --library"):
        index(tmp_path / "library", model, photos, delete)
    assert index(tmp_path / "library", model, photos) == _PHOTOS
