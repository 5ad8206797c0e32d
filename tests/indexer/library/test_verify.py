"""Verify finds damage in the catalog itself."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import LibraryDamaged, PhotoNotFound
from indexer.library import Library
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
