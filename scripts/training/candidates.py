"""What a step of ITM sees: texts with their own photo, and others that are hard to tell from it."""

import dataclasses
import random

import torch
from torch import Tensor

from indexer.model.compact._network import CompactNetwork
from scripts.training.batches import Source, random_views
from scripts.training.texts import Texts

CANDIDATES = 6
"""Photos that a text is compared with in one step: its own, one at random, and hard ones."""
_CAPTIONS, _NAMES = 28, 6
# ITM stalls at chance when it starts on hard negatives: even draws first, then among ever fewer of the nearest. A
# rerank of 20 in dev's 1,000 photos tells apart what is among the nearest 120 of 6,091.
_EVEN_STEPS, _HARDENING_STEPS, _NEAREST, _DEPTH = 50, 250, 512, 120
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Lists:
    """L texts with C candidates each, the text's own photo first.

    ``features`` (L * C, 49, 1808), ``logits`` (L * C, 1000), the texts as ids and mask (L, T), and the ITC similarity
    of each pair (L, C).
    """

    features: Tensor
    logits: Tensor
    ids: Tensor
    mask: Tensor
    similarity: Tensor


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The training set as the network embeds it.

    ``images`` (I, 32, 256), the captioned photos first; ``texts`` (T, 256); and for each caption the captioned photos
    ``nearest`` to it, but its own (captions, 512).
    """

    images: Tensor
    texts: Tensor
    nearest: Tensor


@torch.inference_mode()
def embedded(network: CompactNetwork, captioned: Source, named: Source, texts: Texts) -> Embedded:
    """Embed one view of every photo, and every text, in bfloat16."""
    images, vectors = [], torch.zeros(len(texts), 256, dtype=torch.bfloat16)
    order = texts.by_length()
    with torch.autocast("cpu", torch.bfloat16):
        for source in (captioned, named):
            for start in range(0, len(source.texts), _BATCH):
                features = torch.from_numpy(source.features.tokens[start : start + _BATCH, 0])
                logits = torch.from_numpy(source.features.logits[start : start + _BATCH, 0])
                tokens = network.tokens(features.float(), network.belief(logits))
                images.append(network.embed_images(tokens).bfloat16())
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            vectors[chosen] = network.embed_texts(*texts.batch(chosen)).bfloat16()
    photos = torch.cat(images)
    owners = torch.tensor([index for index, row in enumerate(captioned.texts) for _ in row])
    return Embedded(photos, vectors, _nearest(photos[: len(captioned.texts)], vectors[: len(owners)], owners))


def _nearest(images: Tensor, texts: Tensor, owners: Tensor) -> Tensor:
    nearest = []
    for start in range(0, len(texts), _BATCH):
        chunk, own = texts[start : start + _BATCH], owners[start : start + _BATCH, None]
        similarity = (images.flatten(0, 1) @ chunk.T).view(*images.shape[:2], -1).amax(dim=1).T.float()
        nearest.append(similarity.scatter(1, own, -torch.inf).topk(_NEAREST).indices)
    return torch.cat(nearest)


class Matching:
    """Draws lists from nothing but the step's number and the embeddings, so that a resumed run is the same run."""

    def __init__(self, captioned: Source, named: Source, texts: Texts) -> None:
        self._captioned, self._named, self._texts = captioned, named, texts
        self._by_name: dict[str, list[int]] = {}
        for index, name in enumerate(named.names):
            if name is not None:
                self._by_name.setdefault(name, []).append(index)

    def at(self, step: int, embeddings: Embedded) -> Lists:
        """The lists of one step, counted from the first step of ITM."""
        draw = random.Random(f"matching {step}")
        rows = [self._captioned_row(draw, step, embeddings) for _ in range(_CAPTIONS)]
        rows += [self._named_row(draw) for _ in range(_NAMES)]
        texts, photos = [text for text, _ in rows], torch.tensor([candidates for _, candidates in rows])
        products = torch.einsum("lcqd,ld->lcq", embeddings.images[photos].float(), embeddings.texts[texts].float())
        features, logits = random_views([self._source(index) for index in photos.flatten().tolist()], draw)
        return Lists(features, logits, *self._texts.batch(texts), products.amax(dim=-1))

    def _source(self, index: int) -> tuple[Source, int]:
        count = len(self._captioned.texts)
        return (self._captioned, index) if index < count else (self._named, index - count)

    def _captioned_row(self, draw: random.Random, step: int, embeddings: Embedded) -> tuple[int, list[int]]:
        own = draw.randrange(len(self._captioned.texts))
        text = draw.choice(self._captioned.texts[own])
        others = [index for index in draw.sample(range(len(self._captioned.texts)), CANDIDATES) if index != own]
        hardening = (step - _EVEN_STEPS) / _HARDENING_STEPS
        if hardening >= 0:
            depth = round(_NEAREST * (_DEPTH / _NEAREST) ** min(1.0, hardening))
            ranks = draw.sample(range(depth), CANDIDATES - 2)
            others[: CANDIDATES - 2] = embeddings.nearest[text, ranks].tolist()
        return text, [own, *others[: CANDIDATES - 1]]

    def _named_row(self, draw: random.Random) -> tuple[int, list[int]]:
        names = draw.sample(list(self._by_name), CANDIDATES)
        photos = [draw.choice(self._by_name[name]) for name in names]
        return draw.choice(self._named.texts[photos[0]]), [len(self._captioned.texts) + photo for photo in photos]
