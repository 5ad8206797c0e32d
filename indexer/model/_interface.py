"""The interface that every model fulfils: three verbs, each doing only its own work."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity

__all__ = ["EMBEDDING_SIZE", "QUERY_TOKENS", "ImageFeatures", "Model", "ModelIdentity"]


@dataclasses.dataclass(frozen=True)
class ImageFeatures:
    """What a model keeps of B photos."""

    tokens: Tensor
    """(B, N, D): the frozen encoder's tokens, which the ITM head attends to."""
    embeddings: Tensor
    """(B, 32, 256) float32: one unit-length embedding per query token, for the ITC similarity."""


class Model(Protocol):
    """A Q-Former retrieval model. Safe to call from several threads."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda", "cuda:1"."""
        ...

    @property
    def image_size(self) -> int:
        """Side S of the square a photo is squashed to, in pixels."""
        ...

    @property
    def token_shape(self) -> tuple[int, int]:
        """(N, D) of one photo's tokens."""
        ...

    @property
    def batch_size(self) -> int:
        """How many photos to encode at once on this device."""
        ...

    @property
    def match_batch_size(self) -> int:
        """How many pairs to match at once on this device."""
        ...

    @property
    def match_weight(self) -> float:
        """Weight w of the order of reranked photos: ``w * ITM match logit + ITC similarity``. 1 in BLIP-2."""
        ...

    def replica(self, device: str) -> "Model":
        """The same checkpoint on another device, to share the work: of the same identity, with weights of its own.

        Raises CheckpointInvalid: its files have changed since it was loaded; ModelError: it cannot run there.
        """
        ...

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """Encode photos: (B, 3, S, S) uint8 RGB, already squashed to S; the model normalises them itself."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode B texts to (B, 256) float32 unit-length embeddings. Never runs the image encoder."""
        ...

    def match(self, tokens: Tensor, texts: Sequence[str], embeddings: Tensor | None = None) -> Tensor:
        """ITM logits (B, 2) float32 of B pairs of tokens (B, N, D) and text; ``softmax(...)[:, 1]`` is the
        probability that they match.

        ``embeddings`` (B, 32, 256) of the same photos, where they are at hand, are not made again by a model whose
        logits start from the ITC similarity.
        """
        ...
