"""The vectors of a library in memory: an exact FAISS index, searched by max-similarity."""

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._gpu_scan import GpuScan
from indexer.library._records import Neighbour
from indexer.library._vector_ids import vector_ids

EXACT_KIND = "exact (FAISS fp16, inner product)"
EXACT_RAM_BYTES = QUERY_TOKENS * (2 * EMBEDDING_SIZE + 8) + 3 * 8
"""A picture: its vectors with an id each, its content id, checksum, and place in the order of ids."""

# FAISS sums 256 products in float32. Its result is off by at most 256 · 2⁻²⁴ ≈ 1.5e-5 for unit vectors; candidates that
# are nearer to each other than that are told apart by the exact similarity.
ROUNDING = 2e-5


class VectorIndex:
    """Exact index over the embeddings of pictures; FAISS's ids are `vector_ids`.

    The 32 vectors of a picture are neighbours in it, pictures in the order they were added. Searching is safe from
    several threads as long as none changes it. Searches without a filter go through a copy on a GPU if FAISS has one.
    """

    def __init__(
        self,
        index: faiss.Index | None = None,
        pictures: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ):
        self.faiss = index if index is not None else _empty()
        self._gpu = GpuScan()
        empty = np.empty(0, np.int64)
        self.content_ids, self.checksums = pictures if pictures is not None else (empty, empty)
        """In the order of the index; the checksums are those of the catalog."""
        self._sorted = np.argsort(self.content_ids)

    def __len__(self) -> int:
        """Pictures."""
        return len(self.content_ids)

    def add(
        self, content_ids: NDArray[np.int64], checksums: NDArray[np.int64], embeddings: NDArray[np.float16]
    ) -> None:
        """Add n pictures that are not in it: ids (n,), checksums (n,), embeddings (n, 32, 256)."""
        ids = vector_ids(content_ids[:, None], np.arange(QUERY_TOKENS))
        # The codes of an fp16 index are the little-endian fp16 values themselves.
        codes = np.ascontiguousarray(embeddings.reshape(-1, EMBEDDING_SIZE).astype("<f2", copy=False)).view(np.uint8)
        self.faiss.add_sa_codes(codes, ids.ravel())
        self._set(np.concatenate([self.content_ids, content_ids]), np.concatenate([self.checksums, checksums]))

    def remove(self, content_ids: NDArray[np.int64]) -> None:
        """Remove pictures that are in it."""
        self.faiss.remove_ids(_selector(content_ids, int(self.content_ids.max(initial=0))))
        self._gpu.forget()
        stay = ~np.isin(self.content_ids, content_ids)
        self._set(self.content_ids[stay], self.checksums[stay])

    def embeddings(self, content_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, 32, 256) of pictures that are in it."""
        positions = self._sorted[np.searchsorted(self.content_ids, content_ids, sorter=self._sorted)]
        rows = positions[:, None] * QUERY_TOKENS + np.arange(QUERY_TOKENS)
        vectors: NDArray[np.float32] = self._rows.reconstruct_batch(rows.ravel())
        return vectors.reshape(-1, QUERY_TOKENS, EMBEDDING_SIZE)

    def holds(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float16]) -> NDArray[np.bool_]:
        """Which of the pictures that are in it, (n,), have these embeddings (n, 32, 256)."""
        same: NDArray[np.bool_] = (self.embeddings(content_ids) == embeddings.astype(np.float32)).all(axis=(1, 2))
        return same

    def count(self, among: NDArray[np.int64] | None) -> int:
        """How many of these pictures are in it; None stands for all."""
        return len(self) if among is None else int(np.isin(self.content_ids, among).sum())

    def nearest(
        self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None, _exact: object = None
    ) -> list[Neighbour]:
        """The k pictures of largest similarity, the max over the 32 dot products; equal ones by content id.

        query: (256,) unit length. among: the only pictures to look at; None looks at all.
        """
        eligible = self.count(among)
        k = min(k, eligible)
        if k <= 0:
            return []
        candidates = self._candidates(query, k, among, eligible * QUERY_TOKENS)
        similarities = exact_similarities(query, self.embeddings(candidates))
        best = np.lexsort((candidates, -similarities))[:k]
        return [Neighbour(int(candidates[place]), float(similarities[place])) for place in best]

    def _candidates(
        self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None, vectors: int
    ) -> NDArray[np.int64]:
        # Every picture that may be among the best k: the vector search is widened until k distinct pictures have been
        # seen and the last vector seen is too far to belong to a picture as good as the k-th.
        selector = None if among is None else _selector(among, int(self.content_ids.max()))
        margin = ROUNDING * max(1.0, float(np.linalg.norm(query)))
        width = 8 * k + 64
        while True:
            width = min(width, vectors)
            similarities, seen = self._scan(query, width, selector)
            pictures, first = np.unique(seen, return_index=True)
            best = similarities[first]
            if len(pictures) >= k:
                worst = np.partition(best, -k)[-k] - margin
                if width == vectors or similarities[-1] < worst:
                    found: NDArray[np.int64] = pictures[best >= worst]
                    return found
            width *= 4

    def _scan(
        self, query: NDArray[np.float32], width: int, selector: faiss.IDSelector | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities of the vectors nearest to (256,), best first, and the pictures they are of, (width,) each."""
        if selector is None and (found := self._gpu.search(self._rows, query, width)) is not None:
            similarities, rows = found
            return similarities, self.content_ids[rows // QUERY_TOKENS]
        parameters = None if selector is None else faiss.SearchParameters(sel=selector)
        products, ids = self.faiss.search(query[None], width, params=parameters)
        return products[0], ids[0] // QUERY_TOKENS

    @property
    def _rows(self) -> faiss.Index:
        return faiss.downcast_index(self.faiss.index)

    def _set(self, content_ids: NDArray[np.int64], checksums: NDArray[np.int64]) -> None:
        self.content_ids, self.checksums = content_ids, checksums
        self._sorted = np.argsort(content_ids)


def exact_similarities(query: NDArray[np.float32], embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Similarity of (256,) with each of (n, 32, 256): the largest dot product, rounded once, to float32."""
    # Not by BLAS: its threads stay awake for a while, and hold the cores that the next search's scan needs.
    products: NDArray[np.float64] = np.einsum("ntd,d->nt", embeddings.astype(np.float64), query.astype(np.float64))
    best: NDArray[np.float64] = products.max(axis=1)
    return best.astype(np.float32)


def _empty() -> faiss.Index:
    return faiss.IndexIDMap(
        faiss.IndexScalarQuantizer(EMBEDDING_SIZE, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    )


def _selector(content_ids: NDArray[np.int64], largest: int) -> faiss.IDSelector:
    # A bit for every possible id; the 32 ids of a picture are one 32-bit word.
    words = np.zeros(largest + 1, "<u4")
    words[content_ids[content_ids <= largest]] = 0xFFFFFFFF
    return faiss.IDSelectorBitmap(words.view(np.uint8))
