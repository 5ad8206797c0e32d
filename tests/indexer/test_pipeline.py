"""Indexing runs over real folders, with the real library and the compact model."""

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from indexer.errors import FolderNotFound, LibraryLocked
from indexer.library import Library
from indexer.model import ImageFeatures, Model, load_model
from indexer.photos import read_photo
from indexer.pipeline import IndexSummary, default_workers, index_folders
from indexer.progress import Progress
from tests.indexer.photos.pictures import saved

Index = Callable[..., IndexSummary]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.create(tmp_path / "library") as library:
        yield library


@pytest.fixture
def index(library: Library, model: Model, photos: Path) -> Index:
    """Index the folder ``photos`` with one decoder process."""

    def run(*folders: Path, **options: object) -> IndexSummary:
        summary = index_folders(library, model, folders or (photos,), **({"workers": 1} | options))  # type: ignore[arg-type]
        report = library.verify()
        assert report.ok, report.findings
        return summary

    return run


def make(path: Path, seed: int = 0, size: tuple[int, int] = (48, 32)) -> Path:
    """A picture of its own for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*reversed(size), 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def age(path: Path) -> None:
    """Make the file's time another than it was, as an edit a minute ago would."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns - 60_000_000_000))


def counts(summary: IndexSummary) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("added", "updated", "moved", "unchanged", "removed", "failed", "embedded")
    return {name: value for name in names if (value := getattr(summary, name))}


def present(library: Library) -> dict[str, int]:
    """Photo id of every present photo, by file name."""
    status = library.status()
    contents = range(1, 1000)
    found = [photo for group in library.photos_of(contents).values() for photo in group]
    assert len(found) == status.photos
    return {photo.path.name: photo.id for photo in found}


def decoders() -> list[psutil.Process]:
    """The decoder processes of this one, among the servers and the browser that other tests keep running."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@dataclasses.dataclass
class SmallBatches:
    """The compact model four photos at a time, so that a few photos are many batches."""

    model: Model
    batch_size: int = 4

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        return self.model.encode_images(pixels)


@dataclasses.dataclass
class FullDevice(SmallBatches):
    """…on a device whose memory is full from the third batch on."""

    batches: int = 0

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        self.batches += 1
        if self.batches > 2:
            raise RuntimeError("out of memory")
        return super().encode_images(pixels)


@dataclasses.dataclass
class CountingBatches(SmallBatches):
    """…and says how many photos it was given at once."""

    batch_size: int = 8
    sizes: list[int] = dataclasses.field(default_factory=list)

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        self.sizes.append(len(pixels))
        return super().encode_images(pixels)


class TestFirstRun:
    def test_keeps_what_the_model_and_the_file_say(
        self, index: Index, library: Library, model: Model, photos: Path
    ) -> None:
        paths = [make(photos / f"{n}.png", n) for n in range(5)]
        assert counts(index()) == {"added": 5, "embedded": 5}
        by_content = library.photos_of(range(1, 10))
        assert sorted(photo.path for [photo] in by_content.values()) == paths
        for content_id, [photo] in by_content.items():
            expected = read_photo(photo.path, model.image_size)
            pixels = torch.from_numpy(expected.pixels).permute(2, 0, 1)[None]
            features = model.encode_images(pixels)
            assert photo.facts == expected.facts
            assert library.thumbnail(content_id) == expected.thumbnail
            assert np.abs(library.embeddings([content_id])[0] - features.embeddings[0].numpy()).max() < 2e-3
            tokens = library.match_features(model.identity, [content_id])[content_id]
            assert tokens.shape == model.token_shape
            restored = tokens.values * tokens.scales
            assert np.abs(restored - features.tokens[0].numpy()).max() < 0.02 * np.abs(restored).max()

    def test_runs_again_for_nothing(self, index: Index, photos: Path) -> None:
        for n in range(3):
            make(photos / f"{n}.png", n)
        index()
        events: list[Progress] = []
        assert counts(index(on_progress=events.append)) == {"unchanged": 3}
        assert events[-1].total == 0

    def test_the_model_gets_several_photos_at_once(self, library: Library, model: Model, photos: Path) -> None:
        for n in range(13):
            make(photos / f"{n:02}.png", n)
        counting = CountingBatches(model)
        index_folders(library, counting, [photos], workers=1)
        assert sum(counting.sizes) == 13
        assert all(4 <= size <= 8 for size in counting.sizes[:-1])

    def test_one_picture_in_many_files_is_looked_at_once(self, index: Index, library: Library, photos: Path) -> None:
        for n in range(6):
            make(photos / f"{n}.png", seed=1)
        assert counts(index()) == {"added": 6, "embedded": 1}
        assert library.status().pictures == 1

    def test_an_empty_folder(self, index: Index, library: Library) -> None:
        summary = index()
        assert (counts(summary), summary.notes) == ({}, ())
        assert library.status().photos == 0

    def test_names_that_are_not_text(self, index: Index, library: Library, photos: Path) -> None:
        names = [os.fsdecode(b"caf\xe9.png"), "line\nbreak.png", "wölfe.png"]
        for seed, name in enumerate(names):
            make(photos / name, seed)
        assert counts(index()) == {"added": 3, "embedded": 3}
        assert set(present(library)) == set(names)
        assert counts(index()) == {"unchanged": 3}

    def test_a_library_inside_the_folder_is_not_indexed(self, model: Model, photos: Path) -> None:
        make(photos / "a.png")
        with Library.create(photos / "library") as library:
            for expected in ({"added": 1, "embedded": 1}, {"unchanged": 1}):
                assert counts(index_folders(library, model, [photos], workers=1)) == expected


class TestChanges:
    def test_touched(self, index: Index, library: Library, photos: Path) -> None:
        path = make(photos / "a.png")
        index()
        before = present(library)
        age(path)
        assert counts(index()) == {"unchanged": 1}
        assert present(library) == before

    def test_edited(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png", 1)
        index()
        before = present(library)
        age(make(photos / "a.png", 2, (50, 50)))
        assert counts(index()) == {"updated": 1, "embedded": 1}
        assert present(library) == before
        assert library.photo(before["a.png"]).facts.width == 50

    def test_renamed_keeps_its_id(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png", 1)
        make(photos / "b.png", 2)
        index()
        before = present(library)
        (photos / "deep").mkdir()
        (photos / "a.png").rename(photos / "deep" / "c.png")
        assert counts(index()) == {"moved": 1, "unchanged": 1}
        assert present(library) == {"c.png": before["a.png"], "b.png": before["b.png"]}

    def test_moved_to_another_folder_keeps_its_id(
        self, index: Index, library: Library, photos: Path, tmp_path: Path
    ) -> None:
        make(photos / "a.png", 1)
        make(photos / "stays.png", 2)
        other = tmp_path / "other"
        other.mkdir()
        index(photos, other)
        before = present(library)
        (photos / "a.png").rename(other / "a.png")
        assert counts(index(photos, other)) == {"moved": 1, "unchanged": 1}
        assert present(library) == before

    def test_copied(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png")
        index()
        shutil.copy2(photos / "a.png", photos / "b.png")
        assert counts(index()) == {"added": 1, "unchanged": 1}
        assert len(present(library)) == 2

    def test_a_copy_and_a_move_at_once(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png")
        index()
        before = present(library)
        shutil.copy2(photos / "a.png", photos / "b.png")
        (photos / "a.png").rename(photos / "c.png")
        assert counts(index()) == {"added": 1, "moved": 1}
        after = present(library)
        assert set(after) == {"b.png", "c.png"}
        assert before["a.png"] in after.values()

    def test_exchanged_names(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png", 1, (48, 32))
        make(photos / "b.png", 2, (50, 32))
        age(photos / "b.png")
        index()
        before = present(library)
        (photos / "a.png").rename(photos / "t")
        (photos / "b.png").rename(photos / "a.png")
        (photos / "t").rename(photos / "b.png")
        assert counts(index()) == {"updated": 2}
        assert present(library) == before
        assert library.photo(before["a.png"]).facts.width == 50

    def test_deleted_is_hidden_and_back_again_is_free(
        self, index: Index, library: Library, photos: Path, tmp_path: Path
    ) -> None:
        make(photos / "a.png", 1)
        make(photos / "b.png", 2)
        index()
        before = present(library)
        (photos / "a.png").rename(tmp_path / "a.png")
        assert counts(index()) == {"removed": 1, "unchanged": 1}
        assert set(present(library)) == {"b.png"}
        assert counts(index()) == {"unchanged": 1}
        (tmp_path / "a.png").rename(photos / "a.png")
        assert counts(index()) == {"added": 1, "unchanged": 1}
        assert present(library) == before

    def test_what_changes_under_the_run_is_recorded_as_it_was_read(
        self, index: Index, library: Library, photos: Path
    ) -> None:
        for n in range(4):
            make(photos / f"{n}.png", n)
        index()
        for n in range(4):
            age(photos / f"{n}.png")

        def interfere(progress: Progress) -> None:
            if progress.stage == "indexing" and progress.done == 0:
                make(photos / "0.png", 10, (60, 60))
                (photos / "1.png").unlink(missing_ok=True)

        assert counts(index(on_progress=interfere)) == {"updated": 1, "unchanged": 2, "removed": 1, "embedded": 1}
        assert library.photo(present(library)["0.png"]).facts.width == 60
        assert counts(index()) == {"unchanged": 3}


class TestFailures:
    def test_are_listed_not_retried_until_changed(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "good.png", 1)
        whole = saved(Image.new("RGB", (400, 400)), "PNG")
        (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
        (photos / "text.jpg").write_text("Not a picture.")
        (photos / "empty.jpg").touch()
        (photos / "also empty.jpg").touch()
        assert counts(index()) == {"added": 1, "failed": 4, "embedded": 1}
        reasons = {failure.path.name: failure.reason for failure in library.failures()}
        assert set(reasons) == {"cut.png", "text.jpg", "empty.jpg", "also empty.jpg"}
        assert reasons["empty.jpg"] == reasons["also empty.jpg"] == "the file is empty"
        assert "not a picture" in reasons["text.jpg"]
        assert set(present(library)) == {"good.png"}

        events: list[Progress] = []
        assert counts(index(on_progress=events.append)) == {"unchanged": 1, "failed": 4}
        assert events[-1].total == 0
        assert len(library.failures()) == 4

        (photos / "cut.png").write_bytes(whole)
        assert counts(index()) == {"updated": 1, "unchanged": 1, "failed": 3, "embedded": 1}
        assert set(present(library)) == {"good.png", "cut.png"}

        (photos / "empty.jpg").unlink()
        assert counts(index()) == {"unchanged": 2, "failed": 2, "removed": 1}
        assert {failure.path.name for failure in library.failures()} == {"text.jpg", "also empty.jpg"}

    def test_a_photo_that_breaks_is_no_longer_found(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png")
        index()
        (photos / "a.png").write_text("Not a picture any more.")
        assert counts(index()) == {"failed": 1}
        assert present(library) == {}

    def test_what_cannot_be_read_at_all_is_tried_again(self, index: Index, library: Library, photos: Path) -> None:
        path = make(photos / "a.png")
        picture = path.read_bytes()
        os.truncate(path, 2 << 30)
        assert counts(index()) == {"failed": 1}
        assert "more than" in library.failures()[0].reason
        assert counts(index()) == {"failed": 1}
        path.write_bytes(picture)
        assert counts(index()) == {"updated": 1, "embedded": 1}
        assert library.failures() == []


class TestFolders:
    def test_one_that_never_was(self, index: Index, library: Library, photos: Path, tmp_path: Path) -> None:
        make(photos / "a.png")
        with pytest.raises(FolderNotFound, match="nowhere does not exist"):
            index(photos, tmp_path / "nowhere")
        with pytest.raises(FolderNotFound, match="is not a folder"):
            index(photos / "a.png")
        assert library.status().photos == 0

    @pytest.mark.parametrize("kind", ["gone", "empty"])
    def test_one_that_is_not_mounted_loses_nothing(
        self, index: Index, library: Library, photos: Path, tmp_path: Path, kind: str
    ) -> None:
        make(photos / "a.png", 1)
        make(photos / "deep/b.png", 2)
        index()
        before = present(library)
        photos.rename(tmp_path / "elsewhere")
        if kind == "empty":
            photos.mkdir()
        summary = index()
        assert counts(summary) == {}
        assert [note.partition(";")[0] for note in summary.notes] == [
            f"{photos} is gone or empty, like a disk that is not mounted"
        ]
        assert f"photoseek index --prune {photos}" in summary.notes[0]
        assert present(library) == before
        if kind == "empty":
            photos.rmdir()
        (tmp_path / "elsewhere").rename(photos)
        assert counts(index()) == {"unchanged": 2}

    @pytest.mark.parametrize("kind", ["gone", "empty"])
    def test_one_that_is_gone_for_good_is_removed_when_told_so(
        self, index: Index, library: Library, photos: Path, tmp_path: Path, kind: str
    ) -> None:
        make(photos / "a.png", 1)
        make(photos / "deep/b.png", 2)
        index()
        photos.rename(tmp_path / "elsewhere")
        if kind == "empty":
            photos.mkdir()
        summary = index(prune=True)
        assert (counts(summary), summary.notes) == ({"removed": 2}, ())
        assert present(library) == {}

    @pytest.mark.parametrize(
        ("photo_count", "gone", "removed"),
        [(2, 1, 1), (5, 2, 0), (5, 4, 0), (10, 2, 2), (10, 3, 0), (26, 6, 0), (30, 6, 6)],
        ids=["one", "two of few", "most of few", "a fifth", "more than a fifth", "of many", "of many a fifth"],
    )
    def test_one_that_suddenly_lacks_many_photos_loses_none(
        self, index: Index, library: Library, photos: Path, photo_count: int, gone: int, removed: int
    ) -> None:
        for n in range(photo_count):
            make(photos / f"{'away' if n < gone else 'here'}/{n}.png", n % 2)  # two pictures: only files count
        index()
        (photos / "away").rename(photos.parent / "away")
        summary = index()
        assert (summary.removed, summary.unchanged) == (removed, photo_count - gone)
        assert library.status().photos == photo_count - removed
        assert len(summary.notes) == (removed == 0)
        if removed == 0:
            assert f"{gone} of {photo_count} photos in {photos} are not there" in summary.notes[0]
            assert f"photoseek index --prune {photos}" in summary.notes[0]
            assert counts(index()) == {"unchanged": photo_count - gone}, "nor in the next run"
        (photos.parent / "away").rename(photos / "away")
        assert library.status().photos + index().added == photo_count

    def test_many_that_moved_have_moved(self, index: Index, library: Library, photos: Path) -> None:
        for n in range(8):
            make(photos / f"old/{n}.png", n)
        index()
        before = present(library)
        (photos / "old").rename(photos / "new")
        (photos / "new/7.png").unlink()
        summary = index()
        assert (counts(summary), summary.notes) == ({"moved": 7, "removed": 1}, ())
        assert present(library) == {name: photo_id for name, photo_id in before.items() if name != "7.png"}

    def test_one_that_goes_away_while_it_is_indexed_loses_nothing(
        self, index: Index, library: Library, photos: Path
    ) -> None:
        for n in range(8):
            make(photos / f"{n}.png", n)
        index()
        for n in range(8):
            make(photos / f"{n}.png", n + 10)
            age(photos / f"{n}.png")

        def unplug(progress: Progress) -> None:
            if progress.stage == "indexing" and photos.exists():
                photos.rename(photos.parent / "unplugged")

        summary = index(on_progress=unplug)
        assert (counts(summary), len(summary.notes)) == ({}, 1)
        assert library.status().photos == 8
        (photos.parent / "unplugged").rename(photos)
        assert counts(index()) == {"updated": 8, "embedded": 8}

    def test_in_one_another_hold_each_photo_once(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png", 1)
        make(photos / "deep/b.png", 2)
        (photos.parent / "link").symlink_to(photos)
        assert counts(index(photos / "deep")) == {"added": 1, "embedded": 1}
        assert counts(index(photos, photos / "deep", photos.parent / "link")) == {
            "added": 1,
            "unchanged": 1,
            "embedded": 1,
        }
        assert counts(index(photos / "deep")) == {"unchanged": 1}
        assert len(present(library)) == 2

    def test_only_one_run_at_a_time(self, index: Index, library: Library) -> None:
        with library.writer(), pytest.raises(LibraryLocked):
            index()


class TestProgress:
    def test_counts_up_to_the_total(self, index: Index, photos: Path) -> None:
        for n in range(12):
            make(photos / f"{n}.png", n)
        (photos / "bad.png").touch()
        events: list[Progress] = []
        index(on_progress=events.append)
        stages = list(dict.fromkeys(event.stage for event in events))
        assert stages == ["scanning", "indexing", "saving", "done"]
        done = [event.done for event in events]
        assert done == sorted(done)
        assert (events[-1].done, events[-1].total, events[-1].failed) == (13, 13, 1)

    def test_photos_are_found_while_the_run_goes_on(self, library: Library, model: Model, photos: Path) -> None:
        for n in range(16):
            make(photos / f"{n}.png", n)
        query = model.encode_texts(["noise"])[0].numpy()
        found = []

        def search(progress: Progress) -> None:
            if progress.stage == "indexing":
                found.append((progress.done, len(library.nearest(query, 100))))

        index_folders(library, SmallBatches(model), [photos], on_progress=search, workers=1)
        under_way = [(done, hits) for done, hits in found if 0 < done < 16]
        assert under_way
        assert all(hits == done for done, hits in under_way)


class TestEndings:
    def test_cancelled_keeps_what_is_done_and_the_next_run_continues(
        self, index: Index, library: Library, model: Model, photos: Path
    ) -> None:
        for n in range(40):
            make(photos / f"{n}.png", n)
        cancelled = threading.Event()

        def cancel(progress: Progress) -> None:
            if progress.done:
                cancelled.set()

        summary = index_folders(
            library, SmallBatches(model), [photos], on_progress=cancel, cancelled=cancelled, workers=1
        )
        assert summary.cancelled
        assert 0 < summary.added < 40
        assert summary.added == len(present(library))
        assert decoders() == []
        assert library.verify().ok
        rest = index()
        assert not rest.cancelled
        assert counts(rest) == {
            "added": 40 - summary.added,
            "unchanged": summary.added,
            "embedded": 40 - summary.added,
        }

    def test_cancelled_before_it_began(self, index: Index, library: Library, photos: Path) -> None:
        make(photos / "a.png")
        cancelled = threading.Event()
        cancelled.set()
        assert index(cancelled=cancelled).cancelled
        assert library.status().photos == 0

    def test_cancelled_while_it_scans_it_takes_nothing_for_gone(
        self, index: Index, library: Library, photos: Path
    ) -> None:
        for n in range(6):
            make(photos / f"{n}/a.png", n)
        index()
        make(photos / "7/new.png", 7)
        cancelled = threading.Event()

        def cancel(progress: Progress) -> None:
            if progress.stage == "scanning":
                time.sleep(0.25)  # so that the next folder is told, too
                if progress.current is not None:
                    cancelled.set()

        for options in ({}, {"prune": True}):
            cancelled.clear()
            summary = index(on_progress=cancel, cancelled=cancelled, **options)
            assert summary.cancelled
            assert counts(summary) == {}
            assert library.status().photos == 6
        assert counts(index()) == {"added": 1, "embedded": 1, "unchanged": 6}

    def test_a_model_that_fails_ends_the_run_not_the_library(
        self, index: Index, library: Library, model: Model, photos: Path
    ) -> None:
        for n in range(20):
            make(photos / f"{n}.png", n)
        with pytest.raises(RuntimeError, match="out of memory"):
            index_folders(library, FullDevice(model), [photos], workers=2)
        assert decoders() == []
        assert library.verify().ok
        kept = len(present(library))
        assert 0 < kept < 20
        assert counts(index()) == {"added": 20 - kept, "unchanged": kept, "embedded": 20 - kept}


class TestAnotherModel:
    @pytest.fixture
    def other(self, model: Model, tmp_path: Path) -> Model:
        """The same weights under another identity, as a fine-tuned copy would have."""
        import indexer.model as package  # noqa: PLC0415

        shipped = Path(package.__file__).parent / "checkpoints" / "compact"
        shutil.copytree(shipped, tmp_path / "checkpoint")
        other = load_model(str(tmp_path / "checkpoint"), "cpu")
        assert other.identity != model.identity
        return other

    def test_is_built_beside_and_then_used(
        self, index: Index, library: Library, model: Model, other: Model, photos: Path, tmp_path: Path
    ) -> None:
        elsewhere = make(tmp_path / "elsewhere/c.png", 3).parent
        make(photos / "a.png", 1)
        shutil.copy2(make(photos / "b.png", 2), photos / "copy of b.png")
        index(photos, elsewhere)
        assert library.active_model() == model.identity
        summary = index_folders(library, other, [photos], workers=1)
        assert counts(summary) == {"unchanged": 3, "embedded": 3}
        assert library.active_model() == other.identity
        assert {record.identity: record.embedded for record in library.models()} == {
            model.identity: 3,
            other.identity: 3,
        }
        assert library.verify().ok
        assert counts(index_folders(library, other, [photos, elsewhere], workers=1)) == {"unchanged": 4}

    def test_is_not_used_while_a_photo_lacks_its_vectors(
        self, index: Index, library: Library, model: Model, other: Model, photos: Path, tmp_path: Path
    ) -> None:
        elsewhere = make(tmp_path / "elsewhere/c.png", 3).parent
        make(photos / "a.png", 1)
        index(photos, elsewhere)
        elsewhere.rename(tmp_path / "unplugged")
        summary = index_folders(library, other, [photos], workers=1)
        assert library.active_model() == model.identity
        assert any("1 picture" in note for note in summary.notes)
        (tmp_path / "unplugged").rename(elsewhere)
        assert index_folders(library, other, [photos], workers=1).notes == ()
        assert library.active_model() == other.identity


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_there_is_always_a_decoder(device: str) -> None:
    assert 1 <= default_workers(device) <= max(1, os.cpu_count() or 1)


def test_a_library_that_grows_large_keeps_typical_queries_to_make_its_index_by(
    library: Library, model: Model, photos: Path
) -> None:
    for number in range(33):
        make(photos / f"{number}.png", seed=number)
    with Library.open(library.directory, exact_up_to=32) as large:
        index_folders(large, model, [photos], workers=1)
        status = large.status()
        assert status.index_kind.startswith("compressed")
        (text,) = model.encode_texts(["a dog catching a ball"]).numpy()
        assert len(large.nearest(text, 10)) == 10
        with large.writer() as writer:
            assert not writer.wants_queries(10**9)
        assert large.verify().findings == ()
