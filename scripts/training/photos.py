"""The photos to learn from: which file belongs to which set, and what is said about it."""

import dataclasses
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

CROPS = 2
"""Random crops of every captioned training photo, beside the whole photo and its mirror image."""
HELD_OUT_CATEGORIES = 20


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo and the texts that describe it: captions, or the one name of its category."""

    path: Path
    captions: tuple[str, ...] = ()
    name: str | None = None


def captioned(data: Path, split: str) -> list[Photo]:
    """Flickr8k's photos of ``split`` ("train" or "dev"), five captions each."""
    folder = data / "flickr8k"
    rows = (json.loads(line) for line in (folder / f"captions.{split}.jsonl").read_text("utf-8").splitlines())
    return [Photo(folder / row["file"], captions=tuple(row["captions"])) for row in rows]


def named(data: Path) -> list[Photo]:
    """Caltech-101's and the clothing set's photos, each with the name of its folder."""
    return [
        Photo(path, name=_name(folder))
        for collection in ("caltech101", "clothing-cc0")
        for folder in sorted((data / collection).iterdir())
        for path in sorted(folder.iterdir())
    ]


def held_out_names(data: Path) -> frozenset[str]:
    """The Caltech-101 categories that training never sees, drawn once and for all (seed 0).

    Never one of the two face categories: they show the same photos, so each would betray the other.
    """
    names = sorted(_name(folder) for folder in (data / "caltech101").iterdir() if not folder.name.startswith("Faces"))
    return frozenset(random.Random(0).sample(names, HELD_OUT_CATEGORIES))


def name_gallery(photos: Sequence[Photo]) -> list[int]:
    """Indices of five photos of every Caltech-101 category (seed 0): the gallery that is searched for names."""
    categories: dict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        if photo.name is not None and photo.path.parent.parent.name == "caltech101":
            categories[photo.name].append(index)
    draw = random.Random(0)
    return [index for name in sorted(categories) for index in draw.sample(categories[name], 5)]


def _name(folder: Path) -> str:
    return folder.name.replace("_", " ").lower()
