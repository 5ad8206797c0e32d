"""Quick measures on cached features while training runs; ``photoseek evaluate`` is the real thing."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from indexer.model.compact._network import CompactNetwork
from scripts.training.texts import Texts

_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Gallery:
    """``features`` (I, 49, 1808), ``logits`` (I, 1000), T texts, and which photo is right for a text (T, I)."""

    features: Tensor
    logits: Tensor
    texts: Texts
    relevant: Tensor

    def tokenised_by(self, tokenizer_file: Path) -> "Gallery":
        """The same gallery for a network with another tokenizer."""
        return dataclasses.replace(self, texts=self.texts.tokenised_by(tokenizer_file))


@dataclasses.dataclass(frozen=True)
class Galleries:
    """What training is measured and fitted on: captions of dev, names that training knows, and names held out of it."""

    captions: Gallery
    known_names: Gallery
    held_out_names: Gallery

    def tokenised_by(self, tokenizer_file: Path) -> "Galleries":
        """The same for a network with another tokenizer."""
        galleries = (self.captions, self.known_names, self.held_out_names)
        return Galleries(*(gallery.tokenised_by(tokenizer_file) for gallery in galleries))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """(I, 50, 256) tokens, (I, 32, 256) embeddings, (T, 256) text embeddings."""

    tokens: Tensor
    images: Tensor
    texts: Tensor

    def similarity(self) -> Tensor:
        """(T, I): the maximum over the query tokens."""
        return torch.stack([(self.images @ text).amax(dim=1) for text in self.texts])


@torch.inference_mode()
def encode(network: CompactNetwork, gallery: Gallery) -> Encoded:
    """Run both halves of the network over a gallery."""
    tokens, images, texts = [], [], []
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(gallery.features), _BATCH):
            belief = network.belief(gallery.logits[start : start + _BATCH])
            tokens.append(network.tokens(gallery.features[start : start + _BATCH].float(), belief))
            images.append(network.embed_images(tokens[-1]))
        for start in range(0, len(gallery.texts), _BATCH):
            texts.append(
                network.embed_texts(*gallery.texts.batch(range(start, min(start + _BATCH, len(gallery.texts)))))
            )
    return Encoded(torch.cat(tokens), torch.cat(images).float(), torch.cat(texts).float())


def recall(scores: Tensor, relevant: Tensor) -> dict[str, float]:
    """Recall@1, 5 and 10 in percent of (T, I) scores: the share of texts with a right photo among the first k."""
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    rank = (scores > best).sum(dim=1)
    return {f"r{k}": round((rank < k).float().mean().item() * 100, 1) for k in (1, 5, 10)}


@torch.inference_mode()
def match_evidence(network: CompactNetwork, encoded: Encoded, texts: Texts, photo: Tensor, text: Tensor) -> Tensor:
    """(P, 2): the ITM margin, as it was trained, and the alignment of P pairs, given by indices of photo and text."""
    evidence = []
    for start in range(0, len(photo), _BATCH):
        chosen, photos = text[start : start + _BATCH], photo[start : start + _BATCH]
        ids, mask = texts.batch(chosen.tolist())
        similarity = (encoded.images[photos] * encoded.texts[chosen][:, None]).sum(dim=-1).amax(dim=1)
        tokens = encoded.tokens[photos]
        with torch.autocast("cpu", torch.bfloat16):
            logits = network.match_given(similarity, tokens, ids, mask)
            words = network.words(network.text_hidden(ids, mask), mask)
            alignment = network.alignment(words, network.places(tokens))
        evidence.append(torch.stack([logits[:, 1] - logits[:, 0], alignment.float()], dim=1).float())
    return torch.cat(evidence)


def area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """AUROC: the chance that a matched pair's score exceeds an unmatched pair's."""
    return (positive[:, None] > negative[None]).float().mean().item()
