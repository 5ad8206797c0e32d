"""Folders that lie in one another, and filters by folder."""

from collections import Counter
from pathlib import Path

import pytest

from indexer.library import Filters, Library
from tests.indexer.library.pictures import MODEL, add, file, picture, query_for


def paths(library: Library, filters: Filters | None = None) -> list[str]:
    """Every photo that passes, by path."""
    neighbours = library.nearest(query_for("a"), 100, filters or Filters())
    photos = library.photos_of([each.content_id for each in neighbours], filters or Filters())
    return sorted(str(photo.path) for some in photos.values() for photo in some)


def test_a_folder_is_added_once(library: Library, photos: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(photos)
    with library.writer() as writer:
        first = writer.add_folder(photos)
        assert writer.add_folder(photos) == first
        assert writer.add_folder(photos / ".." / photos.name) == first
        assert writer.add_folder(link) == first
        assert writer.folders() == {first: photos}
    assert library.folders() == [photos]


@pytest.mark.parametrize("outer_first", [True, False])
def test_a_photo_of_two_folders_is_there_once(library: Library, photos: Path, outer_first: bool) -> None:
    inner = photos / "2020" / "%_\udcff"
    with library.writer() as writer:
        writer.use_model(MODEL)
        if outer_first:
            outer_id, inner_id = writer.add_folder(photos), writer.add_folder(inner)
            writer.commit(
                [file(outer_id, "2020/%_\udcff/a.jpg", "a"), file(outer_id, "b.jpg", "b")], [picture("a"), picture("b")]
            )
        else:
            inner_id = writer.add_folder(inner)
            add(writer, inner_id, "a")
            photo_id = writer.known_files(inner_id)["a.jpg"].photo_id
            outer_id = writer.add_folder(photos)
            assert writer.known_files(outer_id)["2020/%_\udcff/a.jpg"].photo_id == photo_id
            add(writer, outer_id, "b")
        # The inner folder knows its own, and a scan of it says nothing new.
        assert list(writer.known_files(inner_id)) == ["a.jpg"]
        add(writer, inner_id, "a")
        assert sorted(writer.known_files(outer_id)) == ["2020/%_\udcff/a.jpg", "b.jpg"]
        # Both in one commit, as when both are indexed at once.
        writer.commit([file(inner_id, "c.jpg", "c"), file(outer_id, "2020/%_\udcff/c.jpg", "c")], [picture("c")])
    expected = sorted([str(inner / "a.jpg"), str(inner / "c.jpg"), str(photos / "b.jpg")])
    assert paths(library) == expected
    assert library.status().photos == 3
    assert {folder.path: folder.photos for folder in library.status().folders} == {photos: 3, inner: 2}
    assert len(paths(library, Filters(folder=inner))) == 2


def test_a_folder_around_several_takes_them_in(library: Library, photos: Path) -> None:
    with library.writer() as writer:
        writer.use_model(MODEL)
        one, two, deep = (writer.add_folder(photos / name) for name in ("one", "two", "two/deep"))
        apart = writer.add_folder(photos.parent / "photos-apart")
        for folder_id, name in ((one, "a"), (two, "b"), (deep, "c"), (apart, "d")):
            add(writer, folder_id, name)
        around = writer.add_folder(photos)
        assert sorted(writer.known_files(around)) == ["one/a.jpg", "two/b.jpg", "two/deep/c.jpg"]
        assert sorted(writer.known_files(two)) == ["b.jpg", "deep/c.jpg"]
        assert list(writer.known_files(apart)) == ["d.jpg"]
        assert len(writer.folders()) == 5
    assert Counter(paths(library)).most_common(1)[0][1] == 1
    assert library.status().photos == 4


def test_filters_by_folder(library: Library, photos: Path) -> None:
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        names = {"a.jpg": "a", "x/b.jpg": "b", "x/y/c.jpg": "c", "X/d.jpg": "d", "xy/e.jpg": "e", "x_/f.jpg": "f"}
        writer.commit(
            [file(folder, path, name) for path, name in names.items()], [picture(name) for name in names.values()]
        )
    assert paths(library, Filters(folder=photos / "x")) == [str(photos / "x/b.jpg"), str(photos / "x/y/c.jpg")]
    assert len(paths(library, Filters(folder=photos))) == 6
    assert len(paths(library, Filters(folder=photos.parent))) == 6
    assert paths(library, Filters(folder=photos / "x_")) == [str(photos / "x_/f.jpg")]
    assert paths(library, Filters(folder=photos / "x" / "b.jpg")) == []
    assert paths(library, Filters(folder=photos.parent / "nowhere")) == []


def test_facets_count_what_is_in_a_folder_or_below_it(library: Library, photos: Path) -> None:
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        writer.commit(
            [file(folder, path, "a") for path in ("1.jpg", "x/2.jpg", "x/y/3.jpg", "x/gone.jpg")], [picture("a")]
        )
        writer.mark_missing([writer.known_files(folder)["x/gone.jpg"].photo_id])
    assert {facet.value: facet.count for facet in library.facets().folders} == {
        str(photos): 3,
        str(photos / "x"): 2,
        str(photos / "x/y"): 1,
    }
