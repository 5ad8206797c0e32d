"""Thumbnails and match features: there, or a miss; never wrong, never an error."""

import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexer.library import Library, NewContent
from indexer.tokens import QuantisedTokens
from tests.indexer.library.pictures import FACTS, MODEL, OTHER_MODEL, embeddings_of, file

THUMBNAIL = b"RIFF\x08\x00\x00\x00WEBP1234"


def tokens_of(number: int) -> QuantisedTokens:
    random = np.random.default_rng(number)
    return QuantisedTokens(random.integers(-127, 128, (50, 256), dtype=np.int8), random.random(256, dtype=np.float32))


def assert_same(tokens: QuantisedTokens, expected: QuantisedTokens) -> None:
    assert (tokens.values.dtype.name, tokens.scales.dtype.name) == ("int8", "float32")
    np.testing.assert_array_equal(tokens.values, expected.values)
    np.testing.assert_array_equal(tokens.scales, expected.scales)


@pytest.fixture
def ids(library: Library, photos: Path) -> list[int]:
    """Content ids of three pictures committed with tokens and thumbnails."""
    names = "abc"
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        writer.commit(
            [file(folder, f"{name}.jpg", name) for name in names],
            [
                NewContent(name, FACTS, None, embeddings_of(name), tokens_of(number), THUMBNAIL + name.encode())
                for number, name in enumerate(names)
            ],
        )
        writer.refresh_vectors()
        known = writer.find_contents(list(names))
    return [known[name].content_id for name in names]


def cache_file(library: Library, part: str, digest: str) -> Path:
    (path,) = (library.directory / part).rglob(f"{digest}.*")
    return path


def test_come_back_as_they_were_given(library: Library, ids: list[int]) -> None:
    features = library.match_features(MODEL, [*ids, 999])
    assert sorted(features) == ids
    for number, content_id in enumerate(ids):
        assert_same(features[content_id], tokens_of(number))
        assert library.thumbnail(content_id) == THUMBNAIL + "abc"[number].encode()
    assert library.thumbnail(999) is None


def test_are_filled_on_demand(library: Library, ids: list[int]) -> None:
    library.add_match_features(MODEL, {ids[0]: tokens_of(77), 999: tokens_of(1)})
    library.add_thumbnail(ids[0], b"another")
    library.add_thumbnail(999, b"of no picture")
    assert_same(library.match_features(MODEL, ids[:1])[ids[0]], tokens_of(77))
    assert library.thumbnail(ids[0]) == b"another"
    assert library.verify().findings == ()


def test_a_thumbnail_file_opens_as_what_it_is(library: Library, ids: list[int]) -> None:
    assert ids
    assert cache_file(library, "thumbnails", "a").suffix == ".webp"
    assert cache_file(library, "thumbnails", "a").read_bytes().startswith(THUMBNAIL + b"a")


def test_a_put_leaves_one_file_of_its_own_behind(library: Library, ids: list[int]) -> None:
    path = cache_file(library, "thumbnails", "a")
    before = set(path.parent.iterdir())
    library.add_thumbnail(ids[0], b"another")
    assert set(path.parent.iterdir()) == before
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    path.mkdir()
    library.add_thumbnail(ids[0], b"a third")  # what cannot be put in its place is not left beside it
    assert set(path.parent.iterdir()) == before


def test_features_of_one_model_are_not_those_of_another(library: Library, ids: list[int]) -> None:
    with library.writer() as writer:
        writer.use_model(OTHER_MODEL)
        writer.commit([], [NewContent("a", None, embeddings=embeddings_of("a"), tokens=tokens_of(5))])
    library.add_match_features(OTHER_MODEL, {ids[1]: tokens_of(6)})
    assert_same(library.match_features(MODEL, ids)[ids[0]], tokens_of(0))
    assert_same(library.match_features(MODEL, ids)[ids[1]], tokens_of(1))
    features = library.match_features(OTHER_MODEL, ids)
    assert list(features) == ids[:2]
    assert_same(features[ids[0]], tokens_of(5))
    assert_same(features[ids[1]], tokens_of(6))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        flip_a_bit,
        make_a_folder,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    ],
    ids=["deleted", "flipped", "a folder", "empty", "cut short", "longer"],
)
def test_damage_is_a_miss(library: Library, ids: list[int], damage: Callable[[Path], None]) -> None:
    damage(cache_file(library, "thumbnails", "a"))
    damage(cache_file(library, "features", "a"))
    assert library.thumbnail(ids[0]) is None
    assert list(library.match_features(MODEL, ids)) == ids[1:]


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" + struct.pack("<I4s", zlib.crc32(b"x"), b"PSk1")])
def test_damage_is_told_once_and_the_file_dropped(library: Library, ids: list[int], content: bytes) -> None:
    files = [cache_file(library, "features", digest) for digest in "ab"]
    for path in files:
        path.write_bytes(content)
    assert list(library.match_features(MODEL, ids)) == ids[2:]
    assert not any(path.exists() for path in files)
    again = "They were not used, and are made again from the photos when next needed."
    assert library.take_notes() == (f"Match features damaged: 2. {again}",)
    assert list(library.match_features(MODEL, ids)) == ids[2:]
    assert library.take_notes() == ()

    flip_a_bit(cache_file(library, "thumbnails", "c"))
    assert library.thumbnail(ids[2]) is None
    assert library.take_notes() == (f"Thumbnails damaged: 1. {again}",)


def test_what_is_only_missing_is_no_damage(library: Library, ids: list[int]) -> None:
    cache_file(library, "thumbnails", "a").unlink()
    for digest in "ab":
        cache_file(library, "features", digest).unlink()
    assert library.thumbnail(ids[0]) is None
    assert list(library.match_features(MODEL, ids)) == ids[2:]
    assert library.take_notes() == ()
    for repair in (False, True):
        report = library.verify(repair)
        assert (report.ok, report.findings) == (True, ())
        assert [note[: note.index(". ")] for note in report.notes] == [
            "Thumbnails missing: 1 of 3",
            "Match features missing: 2 of 3",
        ]


def test_a_cache_that_cannot_be_written_stops_nothing(library: Library, photos: Path) -> None:
    (library.directory / "thumbnails").write_text("in the way")
    (library.directory / "features").write_text("in the way")
    with library.writer() as writer:
        writer.use_model(MODEL)
        content = NewContent("a", FACTS, None, embeddings_of("a"), tokens_of(1), THUMBNAIL)
        writer.commit([file(writer.add_folder(photos), "a.jpg", "a")], [content])
        content_id = writer.find_contents(["a"])["a"].content_id
    library.add_thumbnail(content_id, THUMBNAIL)
    assert library.thumbnail(content_id) is None
    assert library.match_features(MODEL, [content_id]) == {}
    assert library.status().photos == 1


FILE = 8 + 4 * 256 + 50 * 256 + 8
"""Bytes of one picture's match features on disk."""


def used(library: Library, digest: str, seconds: int) -> None:
    os.utime(cache_file(library, "features", digest), (seconds, seconds))


class TestBudget:
    def test_status_says_what_the_features_take(self, library: Library, ids: list[int]) -> None:
        status = library.status()
        assert status.match_features == len(ids)
        assert status.bytes["match_features"] == len(ids) * FILE
        assert status.match_cache_bytes == 4_000_000_000

    def test_what_was_used_longest_ago_goes_first(self, library: Library, ids: list[int]) -> None:
        for digest, seconds in {"a": 20, "b": 10, "c": 30}.items():
            used(library, digest, seconds)
        library.limit_match_features(3 * FILE - 1)
        assert list(library.match_features(MODEL, ids)) == [ids[0], ids[2]]

    def test_a_look_is_a_use(self, library: Library, ids: list[int]) -> None:
        for digest in "abc":
            used(library, digest, 10)
        library.match_features(MODEL, [ids[1]])
        library.limit_match_features(2 * FILE)
        assert list(library.match_features(MODEL, ids)) == [ids[1]]

    def test_never_exceeds_it_whoever_writes(self, library: Library, ids: list[int]) -> None:
        library.limit_match_features(2 * FILE)
        with Library.open(library.directory) as other:
            for number in range(10):
                other.add_match_features(MODEL, {ids[number % 3]: tokens_of(number)})
                library.add_match_features(OTHER_MODEL, {ids[number % 3]: tokens_of(number)})
                assert library.status().bytes["match_features"] <= 2 * FILE
            assert other.status().match_cache_bytes == 2 * FILE
        assert library.verify().findings == ()

    def test_holds_while_indexing(self, library: Library, photos: Path) -> None:
        library.limit_match_features(3 * FILE)
        names = [f"n{number}" for number in range(12)]
        with library.writer() as writer:
            writer.use_model(MODEL)
            folder = writer.add_folder(photos)
            for name in names:
                content = NewContent(name, FACTS, embeddings=embeddings_of(name), tokens=tokens_of(1))
                writer.commit([file(folder, f"{name}.jpg", name)], [content])
        assert 0 < library.status().bytes["match_features"] <= 3 * FILE

    def test_of_nothing_keeps_nothing(self, library: Library, ids: list[int]) -> None:
        library.limit_match_features(0)
        library.add_match_features(MODEL, {ids[0]: tokens_of(0)})
        assert library.match_features(MODEL, ids) == {}
        assert library.status().match_features == 0
        assert library.thumbnail(ids[0]) is not None


def test_features_of_format_1_are_dropped(library: Library, ids: list[int]) -> None:
    library.close()
    with closing(sqlite3.connect(library.directory / "catalog.sqlite")) as connection:
        connection.execute("ALTER TABLE catalog_state DROP COLUMN match_cache_bytes")
        connection.execute("DROP TABLE typical_queries")
        connection.execute("PRAGMA user_version = 1")
    old = np.random.default_rng(0).standard_normal((50, 256)).astype("<f2").tobytes()
    data = struct.pack("<II", 50, 256) + old
    cache_file(library, "features", "a").write_bytes(data + struct.pack("<I4s", zlib.crc32(data), b"PSk1"))
    with Library.open(library.directory) as migrated:
        assert migrated.match_features(MODEL, ids) == {}
        assert migrated.thumbnail(ids[0]) is not None
        assert migrated.verify().findings == ()
        migrated.add_match_features(MODEL, {ids[0]: tokens_of(3)})
        assert_same(migrated.match_features(MODEL, ids)[ids[0]], tokens_of(3))


def test_verify_finds_and_drops_what_is_damaged_or_left_over(library: Library, ids: list[int]) -> None:
    flip_a_bit(cache_file(library, "thumbnails", "a"))
    flip_a_bit(cache_file(library, "features", "b"))
    make_a_folder(cache_file(library, "thumbnails", "b"))
    good = cache_file(library, "features", "c")
    (good.parent / ".half-written").write_bytes(b"x")
    (good.parent.parent / "zz").mkdir()
    stranger = good.parent.parent / "zz" / "zz.tokens"
    stranger.write_bytes(good.read_bytes())
    expected = {
        "thumbnails: a.webp is damaged",
        "match_features: b.tokens is damaged",
        "thumbnails: b.webp cannot be read: Is a directory",
        "match_features: .half-written is left over",
        "match_features: zz.tokens is of a picture that is not in the catalog",
    }
    report = library.verify()
    assert set(report.findings) == set(report.remaining) == expected
    assert not report.ok
    assert report.notes == ()
    report = library.verify(repair=True)
    assert set(report.repaired) == expected
    assert report.ok
    assert report.notes[0] == "What was dropped is made again from the photos when it is next needed."
    assert [note.partition(".")[0] for note in report.notes[1:]] == [
        "Thumbnails missing: 2 of 3",
        "Match features missing: 1 of 3",
    ]
    assert library.verify().findings == ()
    library.add_thumbnail(ids[1], THUMBNAIL)
    assert library.thumbnail(ids[1]) == THUMBNAIL
    assert good.exists()
    assert not stranger.exists()
    assert sorted(library.match_features(MODEL, ids)) == [ids[0], ids[2]]
