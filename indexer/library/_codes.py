"""The codes that a compressed index keeps in place of vectors: four bits for each pair of coordinates."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._blocks import BITS, BLOCK_BYTES, Blocks

_POOL = ThreadPoolExecutor(os.cpu_count(), "codes")
_PART = 2048
"""Pictures whose blocks one thread gathers and scans at once: 4 MB, which stay in a processor's cache."""


@dataclasses.dataclass(slots=True)
class Subspace:
    """The coordinates that codes are made of: principal directions, turned at random so that all weigh alike."""

    centre: NDArray[np.float32]
    """(256,): the mean, which is taken off."""
    projection: NDArray[np.float32]
    """(d, 256), orthonormal rows."""

    @classmethod
    def of(cls, vectors: NDArray[np.float32], dimensions: int, rng: np.random.Generator) -> "Subspace":
        """The one of so many dimensions that holds most of (n, 256)."""
        centre: NDArray[np.float32] = vectors.mean(axis=0, dtype=np.float32)
        _, directions = np.linalg.eigh((vectors - centre).T @ (vectors - centre))
        turn, _ = np.linalg.qr(rng.standard_normal((dimensions, dimensions), np.float32))
        return cls(centre, np.ascontiguousarray((turn @ directions[:, -dimensions:].T).astype(np.float32)))

    def project(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 256) to (n, d)."""
        return np.asarray(vectors @ self.projection.T - self.projection @ self.centre, np.float32)


@dataclasses.dataclass(slots=True)
class Code:
    """How the 32 vectors of a picture are turned into a block of codes, and blocks are searched."""

    subspace: Subspace
    """Of all 256 dimensions: what texts ask for lies also in those in which photos hardly differ."""
    scanner: faiss.IndexPQFastScan
    """Trained and empty: the product quantiser."""

    @classmethod
    def trained(cls, vectors: NDArray[np.float32], rng: np.random.Generator) -> "Code":
        """Made from (n, 256), n at least 256."""
        subspace = Subspace.of(vectors, EMBEDDING_SIZE, rng)
        scanner = faiss.IndexPQFastScan(EMBEDDING_SIZE, EMBEDDING_SIZE // 2, BITS, faiss.METRIC_INNER_PRODUCT)
        scanner.train(subspace.project(vectors))
        return cls(subspace, scanner)

    def blocks(self, embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(n, 32, 256) to (n, 2048)."""
        scanner = faiss.clone_index(self.scanner)
        scanner.add(self.subspace.project(embeddings.reshape(-1, EMBEDDING_SIZE)))
        codes: NDArray[np.uint8] = faiss.AlignedTable_to_array(scanner.codes)
        return codes.reshape(-1, BLOCK_BYTES)

    def best(
        self, query: NDArray[np.float32], blocks: Blocks, rows: NDArray[np.int32], k: int, margin: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Those of the rows of ``blocks``, at least k, of which the largest product with (256,) is, by their codes,
        less than ``margin`` below the k-th largest: places in ``rows``, best first, and the products.
        """
        turned = self.subspace.projection @ query
        parts = np.array_split(np.arange(len(rows)), max(1, len(rows) // _PART))
        # What is within the margin of the best of all is within that of the best of its part.
        each = _POOL.map if len(parts) > 1 else map
        scanned = list(each(lambda part: self._scanned(turned, blocks, rows[part], k, margin), parts))
        places = np.concatenate([part[found] for part, (found, _) in zip(parts, scanned, strict=True)])
        best = np.concatenate([products for _, products in scanned])
        order = np.argsort(-best, kind="stable")
        places, best = places[order], best[order]
        near = best >= best[min(k, len(best)) - 1] - margin
        return places[near], best[near]

    def _scanned(
        self, turned: NDArray[np.float32], blocks: Blocks, rows: NDArray[np.int32], k: int, margin: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As above, in no order, of the query as it is turned."""
        scanner = faiss.clone_index(self.scanner)
        size = len(rows) * BLOCK_BYTES
        scanner.codes.resize(size)
        blocks.take(rows, out=faiss.rev_swig_ptr(scanner.codes.get(), size).reshape(-1, BLOCK_BYTES))
        scanner.ntotal = scanner.ntotal2 = vectors = len(rows) * QUERY_TOKENS
        width = 8 * k + 512
        while True:
            width = min(width, vectors)
            products, numbers = scanner.search(turned[None], width)
            places, first = np.unique(numbers[0] // QUERY_TOKENS, return_index=True)
            best = products[0][first]
            if width == vectors or (len(places) >= k and products[0][-1] < np.partition(best, -k)[-k] - margin):
                return places, best
            width *= 4
