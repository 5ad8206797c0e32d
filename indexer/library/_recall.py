"""Measures what a compressed index misses, on queries of which the best pictures are known."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE

PROBES = 100
"""Queries that a library makes by itself."""
TOP = 10
"""Recall is of the best ten pictures."""
KEPT = 32
"""Best pictures known of each query: deletions take some, and ten must be left."""


Probe = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]
"""A query (256,), and of its best pictures the content ids (k,) and the query tokens that give the best match (k,)."""


@dataclasses.dataclass(slots=True)
class Probes:
    """Queries, and the pictures that an exact search would find for each; kept in step with the index by arithmetic."""

    queries: NDArray[np.float32]
    """(q, 256) of unit length."""
    content_ids: NDArray[np.int64]
    """(q, 32), best first; −1 where there is none."""
    tokens: NDArray[np.int64]
    """(q, 32), of those: the query token that gives the best match; −1 where there is none."""
    similarities: NDArray[np.float32]
    """(q, 32), of those; −∞ where there is none."""
    floors: NDArray[np.float32]
    """(q,): no picture of the library above it is lacking in the list."""

    @classmethod
    def asking(cls, queries: NDArray[np.float32]) -> "Probes":
        """These queries, (q, 256) of unit length; no picture has been seen yet."""
        shape = (len(queries), KEPT)
        nothing, none = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        return cls(queries, nothing, nothing.copy(), none, np.full(len(queries), -np.inf, np.float32))

    @classmethod
    def made_from(cls, embeddings: NDArray[np.float16], rng: np.random.Generator) -> "Probes":
        """Queries that resemble searches, of (n, 32, 256), where the model's own of typical texts are not known.

        A text lies in another region than the vectors of photos: away from their mean, and at a distance from all of
        them. So a query is what a photo, and one vector of it, have that those of other photos for the same query
        token have not; as much of a vector of another photo; and as much noise. What all photos have in common at a
        token tells none from the others. Of the queries that a library can make by itself these ask of the index what
        texts do (docs/search-at-scale.md).
        """
        count = min(PROBES, len(embeddings))
        chosen = embeddings[rng.choice(len(embeddings), count, replace=False)].astype(np.float32)
        centres = embeddings.mean(axis=0, dtype=np.float32)
        tokens = rng.integers(0, chosen.shape[1], (2, count))
        one = _unit(chosen[np.arange(count), tokens[0]] - centres[tokens[0]])
        other = _unit(chosen[rng.permutation(count), tokens[1]] - centres[tokens[1]])
        own = _unit(3 * one + _unit((chosen - centres).mean(axis=1)))
        queries = _unit(own + other + _unit(rng.standard_normal(own.shape, np.float32)))
        return cls.asking(queries)

    def add(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float32]) -> None:
        """Pictures came: ids (n,), embeddings (n, 32, 256)."""
        products = (self.queries @ embeddings.reshape(-1, EMBEDDING_SIZE).T).reshape(-1, *embeddings.shape[:2])
        tokens = products.argmax(axis=2)
        similarities = np.take_along_axis(products, tokens[..., None], 2)[..., 0]
        similarities[similarities <= self.floors[:, None]] = -np.inf
        self._keep(
            np.concatenate([self.content_ids, np.broadcast_to(content_ids, tokens.shape)], 1),
            np.concatenate([self.tokens, tokens], 1),
            np.concatenate([self.similarities, similarities], 1),
        )
        self.floors = np.maximum(self.floors, self.similarities[:, -1])

    def remove(self, content_ids: NDArray[np.int64]) -> None:
        """Pictures went."""
        self.similarities[np.isin(self.content_ids, content_ids)] = -np.inf
        self._keep(self.content_ids, self.tokens, self.similarities)

    def _keep(
        self, content_ids: NDArray[np.int64], tokens: NDArray[np.int64], similarities: NDArray[np.float32]
    ) -> None:
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :KEPT]
        self.similarities = np.take_along_axis(similarities, order, 1)
        there = self.similarities > -np.inf
        self.content_ids = np.where(there, np.take_along_axis(content_ids, order, 1), -1)
        self.tokens = np.where(there, np.take_along_axis(tokens, order, 1), -1)

    def best(self, pictures: int) -> list[Probe]:
        """Queries whose best ten, or all of fewer ``pictures``, are known."""
        top = min(TOP, pictures)
        known = (self.content_ids[:, :top] >= 0).all(axis=1)
        return list(zip(self.queries[known], self.content_ids[known, :top], self.tokens[known, :top], strict=True))

    def worn(self, pictures: int) -> bool:
        """Whether deletions have left too few queries to measure by."""
        return 2 * len(self.best(pictures)) < len(self.queries)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return scaled
