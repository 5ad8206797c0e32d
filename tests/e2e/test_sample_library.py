"""The sample library finds what its photos show."""

import pytest

from indexer.library import Library
from indexer.model import Model
from scripts.sample_library import write_samples
from search.engine import SearchEngine
from search.query import SearchQuery
from tests.command import photoseek

SHOWN = {
    "a cup of coffee": {"coffee.png"},
    "a cat": {"chelsea.png"},
    "an astronaut in an orange suit": {"astronaut.png"},
    "a rocket on the launch pad": {"rocket.jpg"},
    "a motorcycle": {"motorcycle_left.png", "motorcycle_right.png"},
    "a flower": {"flower.jpg"},
    "a Chinese temple": {"china.jpg"},
    "the moon": {"moon.png"},
    "galaxies in space": {"hubble_deep_field.jpg"},
    "a man with a camera": {"camera.png"},
    "coins": {"coins.png"},
    "a brick wall": {"brick.png"},
}


@pytest.fixture(scope="module")
def firsts(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The first photo's name for each search."""
    photos, library = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("library")
    write_samples(photos)
    photoseek("index", photos, library=library)
    with Library.open(library) as opened:
        engine = SearchEngine(opened, model)
        return {text: engine.search(SearchQuery(text=text)).results[0].photo.path.name for text in SHOWN}


def test_a_cup_of_coffee(firsts: dict[str, str]) -> None:
    assert firsts["a cup of coffee"] == "coffee.png"


def test_most_searches_find_their_photo_first(firsts: dict[str, str]) -> None:
    missed = {text: first for text, first in firsts.items() if first not in SHOWN[text]}

    assert len(missed) <= 3, missed
