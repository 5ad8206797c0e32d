"""Which of BLIP-2's weights are in memory while a library is searched: counted among all that the process holds."""

import gc
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.library import Library
from indexer.model import load_model
from indexer.pipeline import index_folders
from search.engine import SearchEngine
from search.query import SearchQuery
from tests.indexer.model.blip2_checkpoint import IMAGE_TOKEN_ID, save_checkpoint

_PATCH_EMBEDDING = (32, 3, 14, 14)
_WORD_EMBEDDINGS = (IMAGE_TOKEN_ID, 48)


def resident() -> tuple[int, int]:
    """How many patch embeddings (image encoders) and word embeddings (text halves) are held by anything."""
    gc.collect()
    shapes = [tuple(each.shape) for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return shapes.count(_PATCH_EMBEDDING), shapes.count(_WORD_EMBEDDINGS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tiny"), image_size=56)


@pytest.fixture
def directory(checkpoint: Path, tmp_path: Path) -> Path:
    """A library of three photos, indexed with BLIP-2."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{number}.png")
    with Library.create(tmp_path / "library") as library:
        index_folders(library, load_model(str(checkpoint), "cpu"), [photos], workers=1)
    return tmp_path / "library"


def test_the_image_encoder_is_there_only_when_a_photo_must_be_looked_at(checkpoint: Path, directory: Path) -> None:
    encoders, words = resident()
    with Library.open(directory) as library:
        engine = SearchEngine(library, load_model(str(checkpoint), "cpu", keep_loaded=0.2))
        assert resident() == (encoders, words + 1)
        assert len(engine.search(SearchQuery(text="a dog", rerank=0)).results) == 3
        assert all(each.match is not None for each in engine.search(SearchQuery(text="a dog", rerank=3)).results)
        assert resident() == (encoders, words + 1)

        shutil.rmtree(directory / "features")
        assert all(each.match is not None for each in engine.search(SearchQuery(text="a dog", rerank=3)).results)
        deadline = time.monotonic() + 60
        while resident() != (encoders, words + 1):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_it_stays_where_nothing_says_how_long(checkpoint: Path, directory: Path) -> None:
    encoders, words = resident()
    with Library.open(directory) as library:
        engine = SearchEngine(library, load_model(str(checkpoint), "cpu"))
        shutil.rmtree(directory / "features")
        engine.search(SearchQuery(text="a dog", rerank=3))
        assert resident() == (encoders + 1, words + 1)
