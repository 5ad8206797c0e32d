"""The codes that a compressed index keeps in place of vectors: four bits for each pair of coordinates."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._blocks import BITS, BLOCK_BYTES, Blocks
from indexer.library._vector_ids import vector_ids

# Each thread has one core: were FAISS to start threads of its own in each, they would wait for one another.
_POOL = ThreadPoolExecutor(os.cpu_count(), "codes", faiss.omp_set_num_threads, (1,))
_PART = 2048
"""Pictures whose blocks one thread gathers and scans at once: 4 MB, which stay in a processor's cache."""

_WIDTH = 2048
"""Vectors of a part that are looked for at first: among a million pictures about a thousand are within the margin."""

_Part = TypeVar("_Part")
_Scanned = TypeVar("_Scanned")


def at_once(scan: Callable[[_Part], _Scanned], parts: Sequence[_Part]) -> list[_Scanned]:
    """What scanning each of the parts gives, a thread for each core: FAISS lets go of Python's lock."""
    return list(_POOL.map(scan, parts))


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

    def turn(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """(256,) to (d,)."""
        # Not by BLAS: its threads stay awake for a while, and hold the cores that the scan needs: for 3 ms of 12.
        return np.asarray(np.einsum("de,e->d", self.projection, query), np.float32)


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
        self, query: NDArray[np.float32], blocks: Blocks, content_ids: NDArray[np.int64], k: int, margin: float
    ) -> "NearVectors":
        """Those vectors of the pictures (n,) of which the product with (256,) is, by their codes, less than ``margin``
        below that of the k-th best picture.
        """
        turned = self.subspace.turn(query)
        parts = np.array_split(content_ids, max(1, len(content_ids) // _PART))
        # What is within the margin of the best of all is within that of the best of its part.
        scanned = at_once(lambda part: self._scanned(turned, blocks, part, k, margin), parts)
        near = NearVectors(
            np.concatenate([part.content_ids for part in scanned]),
            np.concatenate([part.tokens for part in scanned]),
            np.concatenate([part.products for part in scanned]) + np.dot(query, self.subspace.centre),
        )
        near = near[np.argsort(-near.products, kind="stable")]
        return near[near.products >= near.kth_best(k) - margin]

    def _scanned(
        self, turned: NDArray[np.float32], blocks: Blocks, content_ids: NDArray[np.int64], k: int, margin: float
    ) -> "NearVectors":
        """As above, of the query as it is turned: the products lack that with the centre, which all have alike."""
        scanner = faiss.clone_index(self.scanner)
        size = len(content_ids) * BLOCK_BYTES
        scanner.codes.resize(size)
        blocks.take(content_ids, out=faiss.rev_swig_ptr(scanner.codes.get(), size).reshape(-1, BLOCK_BYTES))
        scanner.ntotal = scanner.ntotal2 = vectors = len(content_ids) * QUERY_TOKENS
        width = 8 * k + _WIDTH
        while True:
            width = min(width, vectors)
            products, numbers = scanner.search(turned[None], width)
            near = NearVectors(content_ids[numbers[0] // QUERY_TOKENS], numbers[0] % QUERY_TOKENS, products[0])
            if width == vectors or near.products[-1] < near.kth_best(k) - margin:
                return near
            width *= 4


@dataclasses.dataclass(frozen=True, slots=True)
class NearVectors:
    """Vectors near to a query by their codes, best first."""

    content_ids: NDArray[np.int64]
    """(m,): the pictures that they are of."""
    tokens: NDArray[np.int64]
    """(m,): which of the picture's 32 each is."""
    products: NDArray[np.float32]
    """(m,): with the query, by the codes."""

    @property
    def vector_ids(self) -> NDArray[np.int64]:
        """(m,): of each."""
        return vector_ids(self.content_ids, self.tokens)

    def __getitem__(self, chosen: "slice | NDArray[np.generic]") -> "NearVectors":
        return NearVectors(self.content_ids[chosen], self.tokens[chosen], self.products[chosen])

    def kth_best(self, k: int) -> float:
        """Product of the k-th best picture; −∞ of fewer pictures."""
        best = self.products[first_places(self.content_ids)]
        return float(best[k - 1]) if len(best) >= k else -np.inf


def first_places(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of the values stands for the first time, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])
