"""One code a picture, of the weighted mean of its vectors: the first step of a search in a compressed index."""

import dataclasses
import math
from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import QUERY_TOKENS
from indexer.library._blocks import BITS
from indexer.library._codes import Subspace, at_once
from indexer.library._recall import TOP

MEAN_DIMENSIONS = 128
_PAIRS = MEAN_DIMENSIONS // 2
PARTS = 2
"""One core alone does not get all of what the memory can give: two scan a million means in half of the time."""
MEAN_BYTES = _PAIRS * BITS // 8 + 8
"""A picture: its code and its id."""
_WINS_POWER = 0.4
_WINS_ADDED = 0.3
"""A query token weighs as its share of the best matches of typical queries, to this power, once so many matches are
added to each token's (docs/search-at-scale.md)."""


@dataclasses.dataclass(slots=True)
class Means:
    """Means of pictures' vectors, in which the query tokens weigh unlike: a few give nearly all best matches."""

    weights: NDArray[np.float32]
    """(32,), of the query tokens; their sum is 1."""
    subspace: Subspace
    """Of 128 dimensions."""
    parts: Sequence[faiss.IndexIVFPQFastScan]
    """A picture is in that of its id modulo their number. Each is of one list: in FAISS, only an inverted file takes
    ids and selectors along in a fast scan."""

    @classmethod
    def trained(
        cls, embeddings: NDArray[np.float16], queries: NDArray[np.float32] | None, rng: np.random.Generator
    ) -> "Means":
        """Empty; made from (n, 32, 256), and typical queries (q, 256) if they are known."""
        if queries is None:
            weights = np.full(QUERY_TOKENS, 1 / QUERY_TOKENS, np.float32)
        else:
            weights = _weights(embeddings, queries)
        means = _weighted(embeddings, weights)
        subspace = Subspace.of(means, MEAN_DIMENSIONS, rng)
        index = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(MEAN_DIMENSIONS), MEAN_DIMENSIONS, 1, _PAIRS, BITS, faiss.METRIC_INNER_PRODUCT
        )
        index.by_residual = False
        index.train(subspace.project(means))
        return cls(weights, subspace, [index, *(faiss.clone_index(index) for _ in range(PARTS - 1))])

    def add(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float32]) -> None:
        """Add pictures (n,) that are not in it, of (n, 32, 256)."""
        means = self.subspace.project(_weighted(embeddings, self.weights))
        for number, part in enumerate(self.parts):
            its = content_ids % PARTS == number
            part.add_with_ids(np.ascontiguousarray(means[its]), content_ids[its])

    def remove(self, content_ids: NDArray[np.int64]) -> None:
        """Remove pictures that are in it."""
        for part in self.parts:
            part.remove_ids(faiss.IDSelectorBatch(content_ids))

    def best(self, query: NDArray[np.float32], count: int, among: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The so many pictures, or fewer, of which the mean has the largest product with (256,), in no order.

        among: the only ones to look at; None looks at all.
        """
        parameters = faiss.SearchParametersIVF(nprobe=1)
        if among is not None:
            chosen = np.zeros(int(among.max(initial=0)) + 1, bool)
            chosen[among] = True
            selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
            parameters = faiss.SearchParametersIVF(nprobe=1, sel=selector)
        turned = self.subspace.turn(query)[None]

        # The best of all lie in the parts as chance has it: more than this in one is six standard deviations off.
        each = count if among is not None else count // PARTS + 3 * math.isqrt(count) + 1
        scanned = at_once(lambda part: part.search(turned, each, params=parameters), self.parts)
        products = np.concatenate([found[0] for found, _ in scanned])
        content_ids: NDArray[np.int64] = np.concatenate([ids[0] for _, ids in scanned])
        # Where a part has fewer pictures, FAISS fills up with −1.
        there = content_ids >= 0
        products, content_ids = products[there], content_ids[there]
        if len(content_ids) <= count:
            return content_ids
        found: NDArray[np.int64] = content_ids[np.argpartition(-products, count)[:count]]
        return found


def _weighted(embeddings: NDArray[np.floating], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 256) of (n, 32, 256)."""
    return np.asarray(weights @ embeddings.astype(np.float32, copy=False), np.float32)


def _weights(embeddings: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    wins = np.full(QUERY_TOKENS, _WINS_ADDED)
    every = embeddings.astype(np.float32)
    for query in queries:
        products = every @ query
        best = np.argsort(-products.max(axis=1))[:TOP]
        wins += np.bincount(products[best].argmax(axis=1), minlength=QUERY_TOKENS)
    weights: NDArray[np.float64] = (wins / wins.sum()) ** _WINS_POWER
    return np.asarray(weights / weights.sum(), np.float32)
