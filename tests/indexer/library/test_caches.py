"""Thumbnails and match features: there, or a miss; never wrong, never an error."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.library import Library, NewContent
from tests.indexer.library.pictures import FACTS, MODEL, OTHER_MODEL, embeddings_of, file

THUMBNAIL = b"RIFF\x08\x00\x00\x00WEBP1234"


def tokens_of(number: int) -> NDArray[np.float16]:
    return np.random.default_rng(number).standard_normal((50, 256)).astype(np.float16)


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
    features = library.match_features([*ids, 999])
    assert sorted(features) == ids
    for number, content_id in enumerate(ids):
        np.testing.assert_array_equal(features[content_id], tokens_of(number))
        assert features[content_id].dtype == np.float16
        assert library.thumbnail(content_id) == THUMBNAIL + "abc"[number].encode()
    assert library.thumbnail(999) is None


def test_are_filled_on_demand(library: Library, ids: list[int]) -> None:
    library.add_match_features(ids[0], tokens_of(77))
    library.add_thumbnail(ids[0], b"another")
    library.add_thumbnail(999, b"of no picture")
    np.testing.assert_array_equal(library.match_features(ids[:1])[ids[0]], tokens_of(77))
    assert library.thumbnail(ids[0]) == b"another"
    assert library.verify().findings == ()


def test_a_thumbnail_file_opens_as_what_it_is(library: Library, ids: list[int]) -> None:
    assert ids
    assert cache_file(library, "thumbnails", "a").suffix == ".webp"
    assert cache_file(library, "thumbnails", "a").read_bytes().startswith(THUMBNAIL + b"a")


def test_features_of_one_model_are_not_those_of_another(library: Library, ids: list[int]) -> None:
    with library.writer() as writer:
        writer.use_model(OTHER_MODEL)
        writer.commit([], [NewContent("a", None, embeddings=embeddings_of("a"), tokens=tokens_of(5))])
        np.testing.assert_array_equal(library.match_features(ids)[ids[0]], tokens_of(0))
        writer.activate(OTHER_MODEL)
    features = library.match_features(ids)
    assert list(features) == [ids[0]]
    np.testing.assert_array_equal(features[ids[0]], tokens_of(5))


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
    assert list(library.match_features(ids)) == ids[1:]


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
    assert library.match_features([content_id]) == {}
    assert library.status().photos == 1


def test_verify_finds_and_drops_what_is_damaged_or_left_over(library: Library, ids: list[int]) -> None:
    flip_a_bit(cache_file(library, "thumbnails", "a"))
    flip_a_bit(cache_file(library, "features", "b"))
    good = cache_file(library, "features", "c")
    (good.parent / ".half-written").write_bytes(b"x")
    (good.parent.parent / "zz").mkdir()
    stranger = good.parent.parent / "zz" / "zz.tokens"
    stranger.write_bytes(good.read_bytes())
    expected = {
        "thumbnails: a.webp is damaged",
        "match_features: b.tokens is damaged",
        "match_features: .half-written is left over",
        "match_features: zz.tokens is of a picture that is not in the catalog",
    }
    report = library.verify()
    assert set(report.findings) == set(report.remaining) == expected
    assert not report.ok
    report = library.verify(repair=True)
    assert set(report.repaired) == expected
    assert report.ok
    assert library.verify().findings == ()
    assert good.exists()
    assert not stranger.exists()
    assert sorted(library.match_features(ids)) == [ids[0], ids[2]]
