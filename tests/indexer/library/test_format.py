"""docs/library-format.md says what is on the disk: a reader written from it alone finds everything."""

import json
import re
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.library import LastRun, Library, NewContent, UnchangedFolder
from indexer.tokens import QuantisedTokens
from tests.indexer.library.pictures import FACTS, MODEL, embeddings_of, file

PAGE = (Path(__file__).parents[3] / "docs" / "library-format.md").read_text(encoding="utf-8")
NAMES = ["aa\udcff\\", "bb"]


@pytest.fixture
def directory(tmp_path: Path, photos: Path) -> Path:
    """A closed library of two pictures, with every cache filled."""
    tokens = QuantisedTokens(np.arange(12, dtype=np.int8).reshape(3, 4), np.array([1, 2, 0, 0.5], np.float32))
    with Library.create(tmp_path / "library") as library, library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        writer.commit(
            [file(folder, f"{NAMES[0]}.jpg", "aa"), file(folder, f"{NAMES[1]}.jpg", "bb")],
            [NewContent(name, FACTS, None, embeddings_of(name), tokens, b"RIFF") for name in ("aa", "bb")],
        )
        writer.refresh_vectors()
        unchanged = {str(photos): UnchangedFolder(scan="0a", indexed=2, failed=0, present=2)}
        writer.keep_last_run(LastRun(writer.version(), MODEL, unchanged))
    return tmp_path / "library"


def test_every_table_and_column_is_described(directory: Path) -> None:
    catalog_part = PAGE.split("## catalog.sqlite")[1].split("\n## ")[0]
    described = {
        section.split("\n")[0].strip(): dict(re.findall(r"^\| (\w+) \| ([A-Z]+) \|", section, re.MULTILINE))
        for section in catalog_part.split("\n### ")[1:]
    }
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        real = {
            table: {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})")} for (table,) in tables
        }
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert described == real
    assert f"`PRAGMA application_id` is {application_id} " in PAGE
    assert f"This page describes format {version}." in PAGE


def test_every_file_is_described(directory: Path) -> None:
    described = {
        path.replace("xx", "[0-9a-f][0-9a-f]").replace("DIGEST", "*").replace("MODEL", MODEL.digest[:16])
        for path in re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    }
    matched = {path for pattern in described for path in directory.glob(pattern)}
    assert matched == {path for path in directory.rglob("*") if path.is_file()}


def test_names_and_vectors_read_as_described(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        stored = dict(
            connection.execute("SELECT digest, relative_path FROM photo JOIN content ON content.id = content_id")
        )
        names = {
            digest: re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), path)
            for digest, path in stored.items()
        }
        assert names == {"aa": f"{NAMES[0]}.jpg", "bb": "bb.jpg"}
        rows = connection.execute(
            "SELECT digest, checksum, vectors FROM embedding JOIN content ON content.id = content_id"
        ).fetchall()
    for digest, checksum, vectors in rows:
        assert checksum == zlib.crc32(vectors)
        assert len(vectors) == 16_384
        np.testing.assert_array_equal(np.frombuffer(vectors, "<f2").reshape(32, 256), embeddings_of(digest))


def test_the_vectors_file_reads_as_described(directory: Path) -> None:
    data = (directory / "vectors.faiss").read_bytes()
    assert data[-8:] == b"PSvec\r\n3"
    length, checksum = struct.unpack("<II", data[-16:-8])
    assert checksum == zlib.crc32(data[:-12])
    about = json.loads(data[-16 - length : -16])
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        assert about["library"] == connection.execute("SELECT library FROM catalog_state").fetchone()[0]
        pairs = connection.execute("SELECT content_id, checksum FROM embedding ORDER BY content_id").fetchall()
    assert about["model"] == {"name": MODEL.name, "revision": MODEL.revision, "digest": MODEL.digest}
    count = about["contents"]
    ids, checksums = np.frombuffer(data[-16 - length - 16 * count : -16 - length], "<i8").reshape(2, count)
    assert list(zip(ids.tolist(), checksums.tolist(), strict=True)) == pairs
    index = faiss.read_index(str(directory / "vectors.faiss"))
    assert faiss.vector_to_array(index.id_map).tolist() == [each * 32 + query for each in ids for query in range(32)]
    np.testing.assert_array_equal(
        faiss.downcast_index(index.index).reconstruct_n(0, 32), embeddings_of("aa").astype(np.float32)
    )


def test_cache_files_read_as_described(directory: Path) -> None:
    for part, suffix in (("thumbnails", "webp"), (f"features/{MODEL.digest[:16]}", "tokens")):
        data = (directory / part / "aa" / f"aa.{suffix}").read_bytes()
        checksum, magic = struct.unpack("<I4s", data[-8:])
        assert (checksum, magic) == (zlib.crc32(data[:-8]), b"PSk1")
    assert struct.unpack("<II", data[:8]) == (3, 4)
    assert np.frombuffer(data[8:24], "<f4").tolist() == [1, 2, 0, 0.5]
    assert np.frombuffer(data[24:-8], "i1").tolist() == list(range(12))


def test_unchanged_folders_read_as_described(directory: Path, photos: Path) -> None:
    data = (directory / "folders.unchanged").read_bytes()
    checksum, magic = struct.unpack("<I4s", data[-8:])
    assert (checksum, magic) == (zlib.crc32(data[:-8]), b"PSk1")
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        (catalog,) = connection.execute("SELECT library, revision FROM catalog_state").fetchall()
    assert json.loads(data[:-8].decode("ascii")) == {
        "version": 1,
        "catalog": list(catalog),
        "complete": {"name": MODEL.name, "revision": MODEL.revision, "digest": MODEL.digest},
        "folders": {str(photos): {"scan": "0a", "indexed": 2, "failed": 0, "present": 2}},
    }
