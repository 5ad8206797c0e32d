"""Which files a scan finds, and what it makes of those that are known."""

import os
from pathlib import Path

import pytest

from indexer.library import KnownFile
from indexer.scan import FolderChanges, FolderScan, FoundFile, compare, display_path, outermost, scan_folder


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)


def found(folder: Path) -> list[str]:
    return [path for path, _, _ in scan_folder(folder, folder / ".library").files]


def known(**changes: object) -> KnownFile:
    fields = {"photo_id": 1, "size": 10, "mtime_ns": 5, "content_id": 1, "digest": "d"}
    flags = {"missing": False, "failed": False, "embedded": True}
    return KnownFile(**(fields | flags | changes))  # type: ignore[arg-type]


def test_photo_files_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a/z.PNG", "a/b/c.heic", "c/d.nef", "notes.txt", "clip.mp4", "jpg", "A.jpeg")
    assert found(tmp_path) == ["A.jpeg", "b.jpg", "a/z.PNG", "a/b/c.heic", "c/d.nef"]


def test_sizes_and_times_are_the_files(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_234_567_890_123_456_789))
    assert scan_folder(tmp_path, tmp_path / "l").files == (FoundFile("a.jpg", 10, 1_234_567_890_123_456_789),)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, ".a.jpg", ".thumbnails/b.jpg", "c/.d/e.jpg", "f.jpg")
    assert found(tmp_path) == ["f.jpg"]


def test_the_library_is_no_folder_of_photos(tmp_path: Path) -> None:
    make(tmp_path, "library/thumbnails/a.webp", "a.jpg")
    assert [path for path, _, _ in scan_folder(tmp_path, tmp_path / "library").files] == ["a.jpg"]


def test_stopped_it_lists_no_further_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/c.jpg", "d/e.jpg")
    listed: list[str] = []
    scan = scan_folder(
        tmp_path, tmp_path / "l", lambda _, folder: listed.append(folder), stopped=lambda: len(listed) == 2
    )
    assert [path for path, _, _ in scan.files] == ["a.jpg", "b/c.jpg"]
    assert listed == [str(tmp_path), str(tmp_path / "b")]


def test_only_links_to_files_within_the_folder_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/out.jpg", "photos/a.jpg", "photos/.kept/b.jpg", "photos2/c.jpg")
    photos = tmp_path / "photos"
    (photos / "out").symlink_to(tmp_path / "elsewhere")
    (photos / "out.jpg").symlink_to(tmp_path / "elsewhere/out.jpg")
    (photos / "beside.jpg").symlink_to("../photos2/c.jpg")
    (photos / "twice.jpg").symlink_to("out.jpg")
    (photos / "round").symlink_to(photos)
    (photos / "link.jpg").symlink_to("a.jpg")
    (photos / "kept.jpg").symlink_to(photos / ".kept/b.jpg")
    (photos / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    assert found(photos) == ["a.jpg", "kept.jpg", "link.jpg"]
    assert scan_folder(photos, tmp_path / "library").leading_out == 3
    (tmp_path / "entrance").symlink_to(photos)
    assert found(tmp_path / "entrance") == ["a.jpg", "kept.jpg", "link.jpg"]


@pytest.mark.timeout(20)
def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    make(tmp_path, "folder.jpg/a.jpg")
    assert found(tmp_path) == ["folder.jpg/a.jpg"]


def test_names_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    (tmp_path / "line\nbreak.jpg").touch()
    names = found(tmp_path)
    assert [os.fsencode(name) for name in names] == [b"caf\xe9.jpg", b"line\nbreak.jpg"]
    assert display_path(tmp_path / names[0]).endswith("caf\ufffd.jpg")


def test_a_folder_that_is_not_there_is_unlistable(tmp_path: Path) -> None:
    assert scan_folder(tmp_path / "gone", tmp_path / "l") == FolderScan((), ("",))


def test_outermost(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    asked = [tmp_path / name for name in ("a/b", "a", "link", "ab", "a/b/../b")]
    assert outermost(asked) == [tmp_path.resolve() / "a", tmp_path.resolve() / "ab"]


def changes_of(scan: FolderScan, catalog: dict[str, KnownFile]) -> FolderChanges:
    """With no more of the catalog than must be given."""
    indexed = {(path, it.size, it.mtime_ns) for path, it in catalog.items() if not it.missing and not it.failed}
    same = {path for path, _, _ in indexed.intersection(scan.files)}
    return compare(scan, indexed, {path: file for path, file in catalog.items() if path not in same})


class TestCompare:
    FILE = FoundFile("a.jpg", 10, 5)

    def test_new(self) -> None:
        assert changes_of(FolderScan((self.FILE,), ()), {}).to_read == ((self.FILE, None),)

    def test_same(self) -> None:
        changes = changes_of(FolderScan((self.FILE,), ()), {"a.jpg": known()})
        assert (changes.to_read, changes.unchanged, changes.vanished) == ((), 1, ())

    @pytest.mark.parametrize(
        "change", [{"size": 11}, {"mtime_ns": 6}, {"mtime_ns": 4}, {"digest": None, "failed": True}]
    )
    def test_changed_or_never_read(self, change: dict[str, object]) -> None:
        before = known(**change)
        assert changes_of(FolderScan((self.FILE,), ()), {"a.jpg": before}).to_read == ((self.FILE, before),)

    def test_failed_before_and_the_same(self) -> None:
        changes = changes_of(FolderScan((self.FILE,), ()), {"a.jpg": known(failed=True)})
        assert (changes.to_read, changes.still_failed, changes.unchanged) == ((), 1, 0)

    def test_back_again(self) -> None:
        before = known(missing=True)
        changes = changes_of(FolderScan((self.FILE,), ()), {"a.jpg": before})
        assert (changes.returned, changes.to_read) == (((self.FILE, before),), ())

    def test_gone(self) -> None:
        catalog = {"a.jpg": known(), "b.jpg": known(photo_id=2), "c.jpg": known(photo_id=3, missing=True)}
        changes = changes_of(FolderScan((self.FILE,), ()), catalog)
        assert (changes.vanished, changes.present) == ((catalog["b.jpg"],), 2)

    def test_what_cannot_be_listed_is_not_gone(self) -> None:
        catalog = {"in/b.jpg": known(photo_id=2), "in/deep/b.jpg": known(photo_id=3), "inn/b.jpg": known(photo_id=4)}
        assert changes_of(FolderScan((), ("in",)), catalog).vanished == (catalog["inn/b.jpg"],)
        assert changes_of(FolderScan((), ("",)), catalog).vanished == ()
