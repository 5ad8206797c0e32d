"""Filters by date, camera, place and format."""

import datetime
from pathlib import Path

import pytest

from indexer.library import Facet, Filters, Library, Near
from tests.indexer.library.pictures import MODEL, file, picture, query_for, with_facts

PICTURES = {
    "paris": with_facts(
        taken_at=datetime.datetime(2020, 5, 1, 0, 0), camera="Canon EOS 5D", latitude=48.8566, longitude=2.3522
    ),
    "london": with_facts(
        taken_at=datetime.datetime(2020, 5, 31, 23, 59, 59, 999999),
        camera="ÉCLAIR 8",
        latitude=51.5074,
        longitude=-0.1278,
    ),
    "taveuni": with_facts(
        taken_at=datetime.datetime(1999, 1, 1), camera="100%_ok", latitude=-16.8, longitude=-179.99, format="PNG"
    ),
    "plain": with_facts(format="WEBP"),
}


@pytest.fixture
def filled(library: Library, photos: Path) -> Library:
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        writer.commit(
            [file(folder, f"{name}.jpg", name) for name in PICTURES], [picture(*each) for each in PICTURES.items()]
        )
    return library


def passing(library: Library, filters: Filters) -> set[str]:
    """Names of what passes, which search, photos and count must agree on."""
    neighbours = library.nearest(query_for("plain"), 10, filters)
    everything = [each.content_id for each in library.nearest(query_for("plain"), 10)]
    photos = library.photos_of(everything, filters)
    assert set(photos) == {each.content_id for each in neighbours}
    assert library.considered(filters) == len(neighbours)
    return {photo.path.stem for some in photos.values() for photo in some}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), set(PICTURES)),
        (Filters(after=datetime.date(2020, 5, 1)), {"paris", "london"}),
        (Filters(after=datetime.date(2020, 5, 2)), {"london"}),
        (Filters(before=datetime.date(2020, 5, 31)), {"paris", "london", "taveuni"}),
        (Filters(before=datetime.date(2020, 5, 30)), {"paris", "taveuni"}),
        (Filters(after=datetime.date(2020, 5, 1), before=datetime.date(2020, 5, 1)), {"paris"}),
        (Filters(after=datetime.date(2021, 1, 1), before=datetime.date(2020, 1, 1)), set()),
        (Filters(before=datetime.date.max), {"paris", "london", "taveuni"}),
        (Filters(camera="canon eos"), {"paris"}),
        (Filters(camera="éclair"), {"london"}),
        (Filters(camera="%_"), {"taveuni"}),
        (Filters(camera="nikon"), set()),
        (Filters(formats=("png",)), {"taveuni"}),
        (Filters(formats=("PNG", "WEBP")), {"taveuni", "plain"}),
        (Filters(near=Near(48.8566, 2.3522, 1)), {"paris"}),
        # Paris and London are 343.6 km apart.
        (Filters(near=Near(48.8566, 2.3522, 343)), {"paris"}),
        (Filters(near=Near(48.8566, 2.3522, 344)), {"paris", "london"}),
        # Across the date line, 21 km.
        (Filters(near=Near(-16.8, 179.81, 22)), {"taveuni"}),
        (Filters(near=Near(-16.8, 179.81, 20)), set()),
        (Filters(near=Near(90, 0, 20100)), {"paris", "london", "taveuni"}),
        (Filters(camera="o", after=datetime.date(2000, 1, 1), formats=("JPEG",), near=Near(50, 0, 1000)), {"paris"}),
    ],
)
def test_passes_exactly(filled: Library, filters: Filters, expected: set[str]) -> None:
    assert passing(filled, filters) == expected


def test_the_same_filter_sees_what_changed_since(filled: Library) -> None:
    filters = Filters(camera="canon")
    assert passing(filled, filters) == {"paris"}
    with Library.open(filled.directory) as other, other.writer() as writer:
        (folder,) = writer.folders()
        writer.commit([file(folder, "new.jpg", "new")], [picture("new", with_facts(camera="Canon"))])
    assert passing(filled, filters) == {"paris", "new"}


def test_facets_say_what_there_is_to_filter_by(filled: Library) -> None:
    facets = filled.facets()
    assert facets.cameras == (Facet("100%_ok", 1), Facet("Canon EOS 5D", 1), Facet("ÉCLAIR 8", 1))
    assert facets.formats == (Facet("JPEG", 2), Facet("PNG", 1), Facet("WEBP", 1))
    assert facets.earliest == datetime.datetime(1999, 1, 1)
    assert facets.latest == datetime.datetime(2020, 5, 31, 23, 59, 59, 999999)


def test_an_empty_library_has_no_facets(library: Library) -> None:
    facets = library.facets()
    assert (facets.folders, facets.cameras, facets.formats, facets.earliest) == ((), (), (), None)
