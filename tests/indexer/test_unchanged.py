"""A folder in which nothing has changed is known by what a run before kept; any other run goes by the catalog."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer._unchanged import UnchangedFolders
from indexer.library import IndexedFile, Library, NewContent, Writer
from indexer.library._caches import read_whole, sealed
from indexer.model import Model, ModelIdentity
from indexer.pending_model import PendingModel
from indexer.pipeline import IndexSummary, index_folders
from indexer.progress import Progress
from indexer.scan import FolderChanges, FolderScan, compare, scan_folder
from tests.indexer.library.pictures import MODEL, OTHER_MODEL, file, picture

KEPT = "folders.unchanged"
NAMES = ("a.jpg", "b.jpg", "c.jpg", "in/d.jpg", "in/e.jpg", os.fsdecode(b"in/caf\xe9.jpg"), "in/broken.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / os.fsdecode(b"photos \xe9")
    make(folder)
    return folder


@pytest.fixture
def directory(tmp_path: Path, photos: Path) -> Path:
    """A closed library that knows the photos, and in which a run found nothing to do."""
    with Library.create(tmp_path / "library") as library:
        record(library, photos)
        run(library, photos)
    return tmp_path / "library"


def make(folder: Path) -> None:
    (folder / "in").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(b"no picture, and never opened")
        os.utime(folder / name, ns=(number, number))


def record(library: Library, folder: Path) -> None:
    """Record the files as pictures of their own, but the broken one."""
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder_id = writer.add_folder(folder)
        found = scan_folder(folder, library.directory).files
        digests = {path: os.fsencode(path).hex() for path, _, _ in found}
        writer.commit(
            [IndexedFile(folder_id, path, size, mtime_ns, digests[path], None) for path, size, mtime_ns in found],
            [
                NewContent(digest, None, "damaged") if "broken" in path else picture(digest)
                for path, digest in digests.items()
            ],
        )
        writer.refresh_vectors()


def run(library: Library, *folders: Path, prune: bool = False) -> IndexSummary:
    """A run that needs no model."""

    def load() -> Model:
        raise AssertionError("there was something to look at")

    return index_folders(library, PendingModel(MODEL, 224, load), folders, workers=1, prune=prune)


def told(summary: IndexSummary) -> dict[str, object]:
    return summary.as_dict() | {"seconds": 0}


def known(directory: Path, folder: Path) -> FolderChanges | None:
    """What a process that opens the library knows of the folder without the catalog's files."""
    with Library.open(directory) as library, library.writer() as writer:
        return UnchangedFolders(writer).changes(folder, scan_folder(folder, directory))


def by_the_catalog(directory: Path, folder: Path) -> FolderChanges:
    with Library.open(directory) as library, library.writer() as writer:
        folder_id = writer.add_folder(folder)
        return compare(
            scan_folder(folder, directory), writer.indexed_files(folder_id), writer.known_files(folder_id, ())
        )


def forget(directory: Path) -> None:
    (directory / KEPT).unlink(missing_ok=True)


def test_another_process_knows_what_the_catalog_says(directory: Path, photos: Path) -> None:
    assert known(directory, photos) == by_the_catalog(directory, photos)
    with Library.open(directory) as library:
        summary = run(library, photos)
        assert (summary.unchanged, summary.failed) == (6, 1)
        forget(directory)
        assert told(run(library, photos)) == told(summary)


def touch(path: Path) -> None:
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def grow_unseen(path: Path) -> None:
    state = path.stat()
    path.write_bytes(path.read_bytes() + b".")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def exchange(one: Path, other: Path) -> None:
    between = one.with_suffix(".tmp")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def put_a_folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "another time": lambda photos: touch(photos / "a.jpg"),
    "another size": lambda photos: grow_unseen(photos / "in/d.jpg"),
    "renamed": lambda photos: (photos / "a.jpg").rename(photos / "z.jpg"),
    "exchanged": lambda photos: exchange(photos / "a.jpg", photos / "b.jpg"),
    "added": lambda photos: (photos / "new.jpg").touch(),
    "gone": lambda photos: (photos / "in/e.jpg").unlink(),
    "broken one touched": lambda photos: touch(photos / "in/broken.jpg"),
    "a folder for a file": lambda photos: put_a_folder_in_its_place(photos / "a.jpg"),
    "not there": lambda photos: photos.rename(photos.with_name("elsewhere")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(directory: Path, photos: Path, change: Callable[[Path], object]) -> None:
    change(photos)
    assert known(directory, photos) is None


@pytest.mark.parametrize("change", ["gone", "not there", "most are gone"])
def test_what_is_gone_is_told_as_without_the_file(directory: Path, photos: Path, change: str) -> None:
    if change == "most are gone":
        for name in NAMES[:4]:
            (photos / name).unlink()
    else:
        CHANGES[change](photos)
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    with Library.open(directory) as library, Library.open(copy) as other:
        for prune in (False, False, True):
            forget(copy)
            assert told(run(library, photos, prune=prune)) == told(run(other, photos, prune=prune))


def test_what_cannot_be_listed_is_another_state() -> None:
    files = (("a.jpg", 1, 2),)
    scans = [FolderScan(files, ()), FolderScan(files, ("in",)), FolderScan((), ("in",)), FolderScan((), ())]
    assert len({scan.digest() for scan in scans}) == 4


def test_equal_scans_have_equal_digests() -> None:
    name = "".join(["in/", "\udce9.jpg"])
    large = 2**70  # of nanoseconds: some file systems have such times
    one = FolderScan(((name, 1, large), (name, 1, large)), ())
    other = FolderScan((("in/\udce9.jpg", 1, 2**70), ("".join(["in", "/\udce9.jpg"]), 1, 2**70)), ())
    assert one.digest() == other.digest()


WRITES: dict[str, Callable[[Writer, int], object]] = {
    "a file": lambda writer, folder: writer.commit([file(folder, "new.jpg", None)], []),
    "a picture": lambda writer, folder: writer.commit([file(folder, "a.jpg", "new")], [picture("new")]),
    "a missing file": lambda writer, folder: writer.mark_missing([writer.known_files(folder)["a.jpg"].photo_id]),
    "a folder": lambda writer, _: writer.add_folder(Path("/elsewhere")),
    "a folder around it": lambda writer, folder: writer.add_folder(writer.folders()[folder].parent),
    "a model": lambda writer, _: writer.use_model(OTHER_MODEL),
    "the active model": lambda writer, _: writer.activate(OTHER_MODEL),
    "queries": lambda writer, _: writer.keep_queries(np.zeros((1, 256), np.float32)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_taken_for_granted_in_a_catalog_that_has_changed(
    directory: Path, photos: Path, write: Callable[[Writer, int], object]
) -> None:
    with Library.open(directory) as library, library.writer() as writer:
        assert writer.last_run().folders
        write(writer, next(iter(writer.folders())))
    assert known(directory, photos) is None


def test_what_another_process_changed_is_put_right(directory: Path, photos: Path) -> None:
    with Library.open(directory) as library:
        with Library.open(directory) as other, other.writer() as writer:
            (folder,) = writer.folders()
            writer.mark_missing([writer.known_files(folder)["b.jpg"].photo_id])
        assert (summary := run(library, photos)).added == 1, summary
        assert run(library, photos).unchanged == 6
    assert known(directory, photos) is not None


def test_a_catalog_that_was_restored_is_another(directory: Path, photos: Path) -> None:
    backup = directory.with_name("backup")
    shutil.copytree(directory, backup)
    for each, name in ((directory, "new.jpg"), (backup, "other.jpg")):
        with Library.open(each) as library, library.writer() as writer:
            (folder,) = writer.folders()
            writer.commit([file(folder, name, "new")], [picture("new")])
    (photos / "new.jpg").write_bytes(bytes(100))
    os.utime(photos / "new.jpg", ns=(5, 5))
    with Library.open(directory) as library:
        assert run(library, photos).unchanged == 7
    shutil.copyfile(directory / KEPT, backup / KEPT)
    assert known(directory, photos) is not None
    assert known(backup, photos) is None, "as many transactions, and another photo"


def of_another(name: str, value: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        data = read_whole(path)
        assert data is not None
        path.write_bytes(sealed(json.dumps(json.loads(data) | {name: value}).encode()))

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "a digit changed": lambda path: path.write_bytes(path.read_bytes().replace(b'"indexed": 6', b'"indexed": 7')),
    "no such file": lambda path: path.write_bytes(b"something else"),
    "of another version": of_another("version", 2),
    "of another library": of_another("catalog", ["another", 1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_is_of_no_use_is_done_without_and_made_again(
    directory: Path, photos: Path, damage: Callable[[Path], object]
) -> None:
    with Library.open(directory) as library:
        before = told(run(library, photos))
        damage(directory / KEPT)
        assert known(directory, photos) is None
        assert told(run(library, photos)) == before
    assert known(directory, photos) is not None


def test_where_it_cannot_be_written_all_else_works(directory: Path, photos: Path) -> None:
    forget(directory)
    (directory / KEPT).mkdir()
    with Library.open(directory) as library:
        assert run(library, photos).unchanged == 6
        assert library.verify().findings == (f"{KEPT}: damaged",)
        assert library.verify(repair=True).ok
        run(library, photos)
    assert known(directory, photos) is not None


def test_verify_finds_damage_and_the_repair_drops_it(directory: Path) -> None:
    DAMAGE["a digit changed"](directory / KEPT)
    with Library.open(directory) as library:
        assert library.verify().findings == (f"{KEPT}: damaged",)
        assert library.verify(repair=True).ok
        assert library.verify().findings == ()
    assert not (directory / KEPT).exists()


def test_it_is_written_only_when_it_says_something_new(directory: Path, photos: Path) -> None:
    def written() -> tuple[int, int]:
        state = (directory / KEPT).stat()
        return state.st_ino, state.st_mtime_ns

    before = written()
    with Library.open(directory) as library:
        run(library, photos)
        assert written() == before
        with library.writer() as writer:
            writer.use_model(OTHER_MODEL)
        run(library, photos)
        assert written() != before


def test_folders_of_other_runs_stay_known(directory: Path, photos: Path) -> None:
    make(photos.with_name("more"))
    with Library.open(directory) as library:
        record(library, photos.with_name("more"))
        run(library, photos)
        run(library, photos.with_name("more"))
    assert known(directory, photos) is not None
    assert known(directory, photos.with_name("more")) is not None


def test_a_run_that_is_cancelled_leaves_nothing_behind(directory: Path, photos: Path) -> None:
    forget(directory)
    stop = threading.Event()

    def cancel(progress: Progress) -> None:
        if progress.stage == "saving":
            stop.set()

    with Library.open(directory) as library:
        model = PendingModel(MODEL, 224, lambda: pytest.fail("nothing to look at"))
        assert index_folders(library, model, [photos], cancelled=stop, on_progress=cancel).cancelled
    assert known(directory, photos) is None


def test_another_model_looks_at_all_pictures(tmp_path: Path, model: Model) -> None:
    class Other:
        identity = ModelIdentity("other", "1", "0" * 64)

        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

    photos = tmp_path / "pictures"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(photos / f"{number}.png")
    embedded = []
    with Library.create(tmp_path / "library") as library:
        for each in (model, model, model, Other(), Other(), model):
            summary = index_folders(library, each, [photos], workers=1)  # type: ignore[arg-type]
            embedded.append((summary.embedded, summary.unchanged))
    assert embedded == [(2, 0), (0, 2), (0, 2), (2, 2), (0, 2), (0, 2)]
