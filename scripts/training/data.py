"""Everything a training run reads: photos as cached features, texts, names, and two galleries to measure on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from indexer.model.compact._network import CompactNetwork
from scripts.training.batches import NAME_PROMPTS, Source, name_texts
from scripts.training.dictionary import Dictionary
from scripts.training.evaluation import Galleries, Gallery
from scripts.training.features import Features, cached
from scripts.training.names import Names
from scripts.training.photos import CROPS, Photo, captioned, held_out_names, named
from scripts.training.photos import name_gallery as photos_of_names
from scripts.training.pretrained import name_embeddings, sentence_embeddings, tokenizer_file
from scripts.training.texts import Texts


@dataclasses.dataclass(frozen=True)
class Data:
    """``texts`` are all captions, then the prompts of all names, then ImageNet's classes.

    ``sentences`` (T, 384) is what their sentence embeddings should be.
    """

    captioned: Source
    named: Source
    texts: Texts
    sentences: Tensor
    captions: int
    class_texts: int
    """Index of ImageNet's first class in ``texts``."""
    names: Names
    galleries: Galleries


def class_names(data: Path) -> list[tuple[str, str]]:
    """ImageNet's classes, each as WordNet's identifier and name, in the order of the classifier's outputs."""
    lines = (data / "imagenet-classes.tsv").read_text("utf-8").splitlines()[1:]
    return [(identifier, name) for _, identifier, name in (line.split("\t") for line in lines)]


def class_definitions(data: Path, wordnet: Dictionary) -> Tensor:
    """(1000, 384): ImageNet's classes by what they are called and what they are."""
    classes = class_names(data)
    return name_embeddings(
        [name for _, name in classes], [[wordnet.definition_of_synset(identifier)] for identifier, _ in classes]
    )


def read(data: Path, work: Path, network: CompactNetwork, wordnet: Dictionary) -> Data:
    """Read everything; features, which are slow to make, are kept in ``work``."""
    train, dev, collection = captioned(data, "train"), captioned(data, "dev"), named(data)
    encoder, folder = network.encoder.eval(), work / "features"
    dev_features = cached(folder, "dev", dev, 0, False, encoder)
    train_features = cached(folder, "train", train, CROPS, True, encoder)
    collection_features = cached(folder, "named", collection, 0, True, encoder)
    held_out = held_out_names(data)
    known = {name for index in photos_of_names(collection) if (name := collection[index].name)} - held_out
    captions = [caption for photo in train for caption in photo.captions]
    names, prompts, prompt_texts = name_texts(collection)
    classes = [NAME_PROMPTS[0].format(name) for _, name in class_names(data)]
    meant = name_embeddings(names, [wordnet.definitions(name) for name in names])
    return Data(
        captioned=Source(train_features, [range(5 * i, 5 * i + 5) for i in range(len(train))], [None] * len(train)),
        named=Source(
            collection_features,
            [[len(captions) + index for index in row] for row in prompt_texts],
            [photo.name if photo.name not in held_out else None for photo in collection],
        ),
        texts=Texts(captions + prompts + classes, tokenizer_file()),
        sentences=torch.cat(
            [
                sentence_embeddings(Texts(captions, tokenizer_file())),
                meant.repeat_interleave(len(NAME_PROMPTS), dim=0),
                network.class_embeddings,
            ]
        ),
        captions=len(captions),
        class_texts=len(captions) + len(prompts),
        names=Names(wordnet.names, [wordnet.definitions(name) for name in wordnet.names]),
        galleries=Galleries(
            caption_gallery(dev, dev_features),
            name_gallery(collection, collection_features, sorted(known), NAME_PROMPTS),
            name_gallery(collection, collection_features, sorted(held_out), NAME_PROMPTS[:1]),
        ),
    )


def caption_gallery(photos: list[Photo], features: Features) -> Gallery:
    """Every photo and every caption; only a caption's own photo is right."""
    owners = torch.tensor([index for index, photo in enumerate(photos) for _ in photo.captions])
    texts = Texts((caption for photo in photos for caption in photo.captions), tokenizer_file())
    return _gallery(features, list(range(len(photos))), texts, owners[:, None] == torch.arange(len(photos)))


def name_gallery(photos: list[Photo], features: Features, names: Sequence[str], prompts: Sequence[str]) -> Gallery:
    """Photos of every category; each of ``names`` is asked for as each of ``prompts``, and any photo of it is right."""
    chosen = photos_of_names(photos)
    asked = [(name, prompt) for name in names for prompt in prompts]
    relevant = torch.tensor([[photos[index].name == name for index in chosen] for name, _ in asked])
    return _gallery(
        features, chosen, Texts((prompt.format(name) for name, prompt in asked), tokenizer_file()), relevant
    )


def _gallery(features: Features, chosen: list[int], texts: Texts, relevant: Tensor) -> Gallery:
    tokens, logits = features.tokens[chosen, 0], features.logits[chosen, 0]
    return Gallery(torch.from_numpy(tokens), torch.from_numpy(logits), texts, relevant)
