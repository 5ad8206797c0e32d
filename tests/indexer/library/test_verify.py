"""Verify finds damage in the catalog itself."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import LibraryDamaged, LibraryError, LibraryLocked, LibraryNotFound, LibraryTooNew, PhotoNotFound
from indexer.library import Library
from tests.disks import no_file_larger_than
from tests.indexer.library.pictures import MODEL, add, query_for


@pytest.fixture
def directory(tmp_path: Path, photos: Path) -> Path:
    """A closed library of three pictures."""
    with Library.create(tmp_path / "library") as library, library.writer() as writer:
        writer.use_model(MODEL)
        add(writer, writer.add_folder(photos), "abc")
        writer.refresh_vectors()
    return tmp_path / "library"


def tamper(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection, connection:
        connection.execute(statement)


def test_a_sound_library_has_no_findings(directory: Path) -> None:
    with Library.open(directory) as library:
        assert library.verify().findings == ()
        assert library.verify(repair=True).ok


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE embedding SET vectors = zeroblob(16384) WHERE content_id = 2",
        "UPDATE embedding SET vectors = x'00' WHERE content_id = 2",
        "UPDATE embedding SET checksum = checksum + 1 WHERE content_id = 2",
    ],
)
def test_damaged_vectors_are_left_out_told_and_dropped(directory: Path, change: str) -> None:
    tamper(directory, change)
    (directory / "vectors.faiss").unlink()
    with Library.open(directory) as library:
        assert [each.content_id for each in library.nearest(query_for("b"), 9) if each.similarity > 0.9] == []
        assert len(library.nearest(query_for("b"), 9)) == 2
        with pytest.raises(PhotoNotFound):
            library.embeddings([2])
        assert any("vectors of picture 2 are damaged" in finding for finding in library.verify().findings)
        assert library.verify(repair=True).ok
        assert library.verify().findings == ()
        with library.writer() as writer:
            # The next run makes them again.
            assert [each.content_id for each in writer.unembedded(9)] == [2]
            add(writer, next(iter(writer.folders())), "b")
        assert library.nearest(query_for("b"), 1)[0].content_id == 2


def test_a_row_that_refers_to_nothing_is_found(directory: Path) -> None:
    tamper(directory, "UPDATE photo SET content_id = 77 WHERE id = 1")
    with Library.open(directory) as library:
        report = library.verify(repair=True)
        assert any("refers to a row of content that is not there" in finding for finding in report.remaining)


def test_an_overwritten_page_is_found_and_never_an_answer(directory: Path) -> None:
    catalog = directory / "catalog.sqlite"
    data = bytearray(catalog.read_bytes())
    page = 4096
    for start in range(page, len(data) - page, page):
        data[start : start + page] = np.random.default_rng(start).bytes(page)
    catalog.write_bytes(data)
    with pytest.raises(LibraryDamaged, match="It was left as it is"), Library.open(directory) as library:
        library.status()
    assert catalog.read_bytes() == bytes(data)


def test_a_damaged_index_of_the_catalog_is_found(directory: Path) -> None:
    # The rows of an index exchanged for those of none: SQLite itself reads on.
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET rootpage = "
            "(SELECT rootpage FROM sqlite_master WHERE name = 'embedding_by_model') WHERE name = 'photo_by_content'"
        )
        connection.commit()
    with Library.open(directory) as library:
        assert any(finding.startswith("catalog: ") for finding in library.verify().findings)


def filled(directory: Path, photos: Path, names: list[str]) -> bytes:
    """A closed library of pictures; the bytes of its catalog."""
    with Library.create(directory) as library, library.writer() as writer:
        writer.use_model(MODEL)
        add(writer, writer.add_folder(photos), names)
        writer.refresh_vectors()
    return (directory / "catalog.sqlite").read_bytes()


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """In the headers of a few pages, where SQLite notices; what is flipped within vectors, their checksums tell. They
    may be the only pages of tables on which all others depend.
    """
    changed = np.frombuffer(data, np.uint8).copy()
    changed[rng.integers(1, 14, 3) * 4096 + rng.integers(0, 8, 3)] ^= 0x55
    return changed.tobytes()


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        *((lambda data, seed=seed: flip_bits(data, np.random.default_rng(seed)), 0) for seed in range(5)),
        (lambda data: data[: len(data) // 2], 15),
        (lambda data: data[: len(data) - 5000], 30),
        (lambda data: b"\0" * 4096 + data[4096:], 40),
        (lambda data: np.random.default_rng(1).bytes(100) + data[100:], 40),
        (lambda data: data[:40960] + b"\xff" * 4096 + data[45056:], 20),
        (lambda _: b"", 0),
        (lambda _: b"something else entirely" * 1000, 0),
    ],
    ids=[*(f"bits {seed}" for seed in range(5)), "half", "end", "first page", "header", "a page", "all", "other"],
)
def test_what_can_be_read_of_a_damaged_catalog_is_salvaged(
    tmp_path: Path, photos: Path, damage: Callable[[bytes], bytes], least: int
) -> None:
    directory = tmp_path / "library"
    names = [f"{n:02}" for n in range(40)]
    damaged = damage(filled(directory, photos, names))
    (directory / "catalog.sqlite").write_bytes(damaged)

    report = Library.repair(directory)
    assert report.ok
    assert "the damaged catalog is kept as catalog.damaged-1.sqlite" in report.findings[0]
    assert (directory / "catalog.damaged-1.sqlite").read_bytes() == damaged
    assert not list(directory.glob("salvage*"))
    with Library.open(directory) as library:
        assert library.verify().findings == ()
        assert library.status().photos >= least
        neighbours = library.nearest(query_for("07"), 99)
        assert len({each.content_id for each in neighbours}) == len(neighbours) >= least
        for [photo] in library.photos_of([each.content_id for each in neighbours]).values():
            assert library.nearest(query_for(photo.path.stem), 1)[0].content_id == photo.content_id, (
                "of its own picture"
            )
        # Indexing goes on where it can.
        with library.writer() as writer:
            writer.use_model(MODEL)
            add(writer, writer.add_folder(photos), names)
        assert library.status().photos == 40
        assert library.verify(repair=True).ok


def test_a_repair_that_finds_no_room_changes_nothing(tmp_path: Path, photos: Path) -> None:
    directory = tmp_path / "library"
    damaged = b"\0" * 4096 + filled(directory, photos, [f"{n:02}" for n in range(40)])[4096:]
    (directory / "catalog.sqlite").write_bytes(damaged)
    for room in (10_000, len(damaged) // 2, len(damaged) - 4096):
        with no_file_larger_than(room), pytest.raises(LibraryError, match="It was left as it is"):
            Library.repair(directory)
        assert (directory / "catalog.sqlite").read_bytes() == damaged
        assert not list(directory.glob("salvage*"))
        assert not list(directory.glob("*damaged*"))
    assert Library.repair(directory).ok


def test_a_sound_catalog_is_left_alone_by_a_repair(directory: Path) -> None:
    before = (directory / "catalog.sqlite").read_bytes()
    assert Library.repair(directory).findings == ()
    assert (directory / "catalog.sqlite").read_bytes() == before
    assert not list(directory.glob("catalog.damaged*"))


def test_rows_that_refer_to_nothing_are_salvaged_away(directory: Path) -> None:
    tamper(directory, "UPDATE photo SET content_id = 77 WHERE id = 1")
    assert Library.repair(directory).ok
    with Library.open(directory) as library:
        assert library.verify().findings == ()
        assert library.status().photos == 2


def test_a_repair_waits_for_no_writer_and_refuses_what_is_newer(directory: Path) -> None:
    with Library.open(directory) as library, library.writer(), pytest.raises(LibraryLocked):
        Library.repair(directory)
    tamper(directory, "PRAGMA user_version = 99")
    with pytest.raises(LibraryTooNew, match="99"):
        Library.repair(directory)
    with pytest.raises(LibraryNotFound):
        Library.repair(directory / "none")
