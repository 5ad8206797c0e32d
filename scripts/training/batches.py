"""What a step of ITC sees: photos with two captions each, and photos with a name."""

import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from scripts.training.features import Features
from scripts.training.photos import Photo
from scripts.training.texts import Texts

T = TypeVar("T")

CAPTIONED = 160
NAMED = 28
BELIEVED = 28
"""Photos named by the encoder itself: its most probable class, where it is sure of one."""
_SURE = 0.5
CAPTIONS = 2
"""Captions of one photo in a step: two see the photo from two sides, which gives query tokens different work."""
NAME_PROMPTS = ("a photo of a {}", "{}", "a {}", "a picture of a {}")


@dataclasses.dataclass(frozen=True)
class Batch:
    """``features`` (I, 49, 1808), ``logits`` (I, 1000), texts as ids and mask (T, L), their MiniLM embeddings (T, 384),
    and which text belongs to which photo (I, T).
    """

    features: Tensor
    logits: Tensor
    ids: Tensor
    mask: Tensor
    sentences: Tensor
    positive: Tensor


@dataclasses.dataclass(frozen=True)
class Source:
    """Photos with their cached features; ``texts[i]`` are the indices of photo i's texts in the common list."""

    features: Features
    texts: Sequence[Sequence[int]]
    names: Sequence[str | None]
    """A photo's name; None where it has none, or where training must not know it."""


class Batches:
    """Endless batches, drawn from nothing but the step's number, so that a resumed run is the same run."""

    def __init__(self, captioned: Source, named: Source, texts: Texts, sentences: Tensor, class_texts: int) -> None:
        """``class_texts`` is the index of ImageNet's first class name in ``texts``."""
        self._captioned, self._named, self._class_texts = captioned, named, class_texts
        self._texts, self._sentences = texts, sentences
        self._by_name: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(named.names):
            if name is not None:
                self._by_name[name].append(index)
        self._by_class: dict[int, list[tuple[Source, int]]] = defaultdict(list)
        for source, index in [(captioned, i) for i in range(len(captioned.texts))] + [
            (named, i) for indices in self._by_name.values() for i in indices
        ]:
            probability = torch.from_numpy(source.features.logits[index, 0]).float().softmax(dim=0)
            if probability.max() > _SURE:
                self._by_class[int(probability.argmax())].append((source, index))

    def at(self, step: int) -> Batch:
        """The batch of one step."""
        draw = random.Random(step)
        steps_per_epoch = len(self._captioned.texts) // CAPTIONED
        epoch, position = divmod(step, steps_per_epoch)
        order = list(range(len(self._captioned.texts)))
        random.Random(f"epoch {epoch}").shuffle(order)
        chosen = order[position * CAPTIONED : (position + 1) * CAPTIONED]
        photos: list[tuple[Source, int]] = [(self._captioned, index) for index in chosen]
        rows = [draw.sample(self._captioned.texts[index], CAPTIONS) for index in chosen]
        labels: list[str | int | None] = [None] * len(photos)
        for name in draw.choices(list(self._by_name), k=NAMED):
            photos.append((self._named, draw.choice(self._by_name[name])))
            rows.append([draw.choice(self._named.texts[photos[-1][1]])])
            labels.append(name)
        for believed in draw.sample(list(self._by_class), k=BELIEVED):
            photos.append(draw.choice(self._by_class[believed]))
            rows.append([self._class_texts + believed])
            labels.append(believed)
        texts = [text for row in rows for text in row]
        owner = [index for index, row in enumerate(rows) for _ in row]
        positive = torch.tensor(
            [[o == i or (labels[i] is not None and labels[i] == labels[o]) for o in owner] for i in range(len(rows))]
        )
        ids, mask = self._texts.batch(texts)
        features, logits = random_views(photos, draw)
        return Batch(features, logits, ids, mask, self._sentences[texts], positive)


def random_views(photos: Sequence[tuple[Source, int]], draw: random.Random) -> tuple[Tensor, Tensor]:
    """(I, 49, 1808) features and (I, 1000) logits of a random view of each photo."""
    tokens, logits = [], []
    for source, index in photos:
        view = draw.randrange(source.features.tokens.shape[1])
        tokens.append(source.features.tokens[index, view])
        logits.append(source.features.logits[index, view])
    return torch.from_numpy(np.stack(tokens)), torch.from_numpy(np.stack(logits))


def name_texts(photos: Sequence[Photo]) -> tuple[list[str], list[str], list[list[int]]]:
    """All names, every prompt of every name, and for each photo the indices of its name's prompts."""
    names = sorted({photo.name for photo in photos if photo.name is not None})
    first = {name: index * len(NAME_PROMPTS) for index, name in enumerate(names)}
    prompts = [prompt.format(name) for name in names for prompt in NAME_PROMPTS]
    return names, prompts, [[first[p.name] + k for k in range(len(NAME_PROMPTS))] for p in photos if p.name is not None]


def ahead(make: Callable[[int], T], steps: range) -> Iterator[tuple[int, T]]:
    """What ``make`` makes for each of ``steps``, each made while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(make, steps.start) if steps else None
        for step in steps:
            assert pending is not None
            made = pending.result()
            if step + 1 < steps.stop:
                pending = pool.submit(make, step + 1)
            yield step, made
