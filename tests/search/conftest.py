"""A large library of near-variants of real pictures, made without files, and a small one of real files."""

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer.facts import PhotoFacts
from indexer.library import IndexedFile, Library, NewContent
from indexer.model import Model, quantised
from indexer.photos import open_rgb, squash
from indexer.tokens import QuantisedTokens

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "coins.png", "hubble_deep_field.jpg")
VARIANTS = 200
CAMERAS = ("Canon EOS 5D", "NIKON D90", None)
FORMATS = ("JPEG", "PNG", "HEIF", "WEBP")
LOST = 7
"""Every seventh picture of the large library has no match features."""


def picture(name: str) -> Image.Image:
    """A photograph that ships inside scikit-image."""
    return open_rgb(Path(skimage.__file__).parent / "data" / name)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A picture of the large library."""

    path: Path
    facts: PhotoFacts
    embeddings: NDArray[np.float16]
    tokens: QuantisedTokens | None


@dataclasses.dataclass(frozen=True)
class LargeLibrary:
    """A library, and all that it holds, by content id."""

    library: Library
    variants: dict[int, Variant]


@pytest.fixture(scope="session")
def large(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LargeLibrary]:
    """1,200 pictures: more than a search ranks. Their files do not exist."""
    directory = tmp_path_factory.mktemp("large")
    variants = {f"{number:032x}": variant for number, variant in enumerate(_variants(model, directory / "photos"))}
    (directory / "photos").mkdir()
    with Library.create(directory / "library") as library:
        with library.writer() as writer:
            writer.use_model(model.identity)
            folder = writer.add_folder(directory / "photos")
            writer.commit(
                [
                    IndexedFile(folder, each.path.relative_to(directory / "photos").as_posix(), 1, 1, digest)
                    for digest, each in variants.items()
                ],
                [
                    NewContent(digest, each.facts, embeddings=each.embeddings, tokens=each.tokens)
                    for digest, each in variants.items()
                ],
            )
            writer.refresh_vectors()
            known = writer.find_contents(list(variants))
        yield LargeLibrary(library, {known[digest].content_id: each for digest, each in variants.items()})


def _variants(model: Model, folder: Path) -> Iterator[Variant]:
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(np.stack([squash(picture(name), model.image_size) for name in PICTURES]))
    features = model.encode_images(pixels.permute(0, 3, 1, 2))
    for number in range(len(PICTURES) * VARIANTS):
        kind = number % len(PICTURES)
        embeddings = features.embeddings[kind].numpy() + random.normal(0, 0.03, (32, 256))
        tokens = features.tokens[kind] + torch.from_numpy(random.normal(0, 0.3, model.token_shape))
        yield Variant(
            path=folder / f"{number % 5}" / f"{number}.jpg",
            facts=PhotoFacts(
                width=100 + number,
                height=100,
                format=FORMATS[number % 4],
                taken_at=None if number % 11 == 0 else datetime.datetime(2000 + number % 20, 1 + number % 12, 5),
                camera=CAMERAS[number % 3],
                latitude=None if number % 2 else number % 80,
                longitude=None if number % 2 else number % 170,
            ),
            embeddings=(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float16),
            tokens=None if number % LOST == 0 else quantised(tokens[None])[0],
        )
