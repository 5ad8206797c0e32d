"""The vectors of a large library in memory: 32 bytes each, searched in three steps, the last of them exact."""

import dataclasses
import math
from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._recall import TOP, Probes
from indexer.library._records import Neighbour
from indexer.library._vectors import VectorIndex

DIMENSIONS = 128
"""Of the subspace in which vectors are kept."""
_PAIRS = DIMENSIONS // 2
_BITS = 4
BLOCK_BYTES = QUERY_TOKENS * _PAIRS * _BITS // 8
"""The codes of a picture's 32 vectors: one block of FAISS's fast scan, whose blocks are of 32 vectors as well."""
RAM_BYTES = BLOCK_BYTES + _PAIRS * _BITS // 8 + 8 + 8 + 8 + 4
"""A picture: its block; code and id of its mean; content id, checksum, and its place in the table of rows."""
COMPRESSED_KIND = f"compressed (PCA to {DIMENSIONS}, {_BITS}-bit codes of pairs; rescored exactly)"

AIM = 0.99
"""Recall below this is repaired…"""
_TARGET = 0.995
"""…and widths are chosen to reach this."""
_LEAST_BREADTH, _LEAST_DEPTH = 512, 64
_MOST_BREADTH, _MOST_DEPTH = 32768, 1024
"""Beyond these a search reads more than 17 MB: what recall there is then is told, and not improved."""
TRAINING_PICTURES = 4096
"""Pictures that a code is made from, at most."""
_TRAINING_VECTORS = 32768
_REMEASURED = 0.01
"""Recall is measured again when this share of the pictures has changed."""
_OUTGROWN = 4
"""How many times as many pictures as the code was made for call for a new code."""

Read = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.float16]]]
"""Reads pictures' embeddings where they are exact: of ids (n,), those that are there (m,) and their (m, 32, 256)."""


@dataclasses.dataclass(slots=True)
class Code:
    """How vectors are turned into codes."""

    centre: NDArray[np.float32]
    """(256,): the mean, which is taken off."""
    projection: NDArray[np.float32]
    """(128, 256), orthonormal rows: the principal subspace, turned at random so that all its dimensions weigh alike."""
    scanner: faiss.IndexPQFastScan
    """Trained and empty: the product quantiser of the 32 vectors of a picture."""

    @classmethod
    def trained(cls, embeddings: NDArray[np.float16], rng: np.random.Generator) -> "Code":
        """Made from (n, 32, 256), n at least 8."""
        every = embeddings.reshape(-1, EMBEDDING_SIZE)
        vectors = every[rng.permutation(len(every))[:_TRAINING_VECTORS]].astype(np.float32)
        centre: NDArray[np.float32] = vectors.mean(axis=0, dtype=np.float32)
        _, directions = np.linalg.eigh((vectors - centre).T @ (vectors - centre))
        turn, _ = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS), np.float32))
        projection = np.ascontiguousarray((turn @ directions[:, -DIMENSIONS:].T).astype(np.float32))
        scanner = faiss.IndexPQFastScan(DIMENSIONS, _PAIRS, _BITS, faiss.METRIC_INNER_PRODUCT)
        scanner.train((vectors - centre) @ projection.T)
        return cls(centre, projection, scanner)

    def project(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 32, 256) to (n, 32, 128)."""
        return np.asarray((embeddings - self.centre) @ self.projection.T, np.float32)

    def blocks(self, projected: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(n, 32, 128) to (n, 1024)."""
        scanner = faiss.clone_index(self.scanner)
        scanner.add(projected.reshape(-1, DIMENSIONS))
        codes: NDArray[np.uint8] = faiss.AlignedTable_to_array(scanner.codes)
        return codes.reshape(-1, BLOCK_BYTES)

    def best(self, query: NDArray[np.float32], blocks: NDArray[np.uint8], depth: int) -> NDArray[np.int64]:
        """Rows of ``blocks`` (n, 1024), n above ``depth``, that hold the largest products with (128,): best first."""
        scanner = faiss.clone_index(self.scanner)
        faiss.copy_array_to_AlignedTable(blocks.ravel(), scanner.codes)
        vectors = len(blocks) * QUERY_TOKENS
        scanner.ntotal = scanner.ntotal2 = vectors
        width = 4 * depth + 64
        while True:
            width = min(width, vectors)
            _, places = scanner.search(query[None], width)
            rows, first = np.unique(places[0] // QUERY_TOKENS, return_index=True)
            if len(rows) >= depth or width == vectors:
                found: NDArray[np.int64] = rows[np.argsort(first)][:depth]
                return found
            width *= 4


@dataclasses.dataclass(slots=True)
class Widths:
    """How much of the library a search for ten pictures looks at, and what that was measured to reach."""

    breadth: int = _LEAST_BREADTH
    """Pictures whose 32 codes are looked at."""
    depth: int = _LEAST_DEPTH
    """Pictures whose vectors are read and compared exactly."""
    recall: float = 1.0
    """Share of the best ten pictures that are found."""
    pictures: int = 0
    """How many the code was made for."""
    unmeasured: int = 0
    """Pictures that came or went since ``recall`` was measured."""


class CompressedIndex:
    """Index over the embeddings of pictures, by codes; what it finds is rescored from vectors that are read.

    A search compares the query with one code a picture, of the mean of its 32 vectors; the codes of the 32 vectors of
    the best of those, ``breadth`` of them, by max-similarity; and the ``depth`` best of these exactly. Every step is a
    scan, of no more than it needs: the three have no part that could fail to look where a query lies, as cells of an
    inverted file do for texts, which lie apart from photos. Searching is safe from several threads as long as none
    changes it.
    """

    def __init__(
        self,
        code: Code,
        means: faiss.IndexIVFPQFastScan,
        probes: Probes,
        widths: Widths,
        blocks: NDArray[np.uint8],
        content_ids: NDArray[np.int64],
        checksums: NDArray[np.int64],
    ) -> None:
        self.code, self.means, self.probes, self.widths = code, means, probes, widths
        self.blocks = blocks
        """(n, 1024), in memory of its own."""
        self.content_ids, self.checksums = content_ids, checksums
        """In the order of ``blocks``; the checksums are those of the catalog."""
        self._index_rows()

    @classmethod
    def trained(cls, embeddings: NDArray[np.float16], pictures: int) -> "CompressedIndex":
        """An empty one for so many pictures, made from (n, 32, 256) of some of them, n at least 8."""
        rng = np.random.default_rng(0)
        code = Code.trained(embeddings, rng)
        means = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(DIMENSIONS), DIMENSIONS, 1, _PAIRS, _BITS, faiss.METRIC_INNER_PRODUCT
        )
        means.by_residual = False
        means.train(code.project(embeddings.astype(np.float32)).mean(axis=1))
        empty = np.empty(0, np.int64)
        probes = Probes.made_from(embeddings, rng)
        return cls(
            code, means, probes, Widths(pictures=pictures), np.empty((0, BLOCK_BYTES), np.uint8), empty, empty.copy()
        )

    def __len__(self) -> int:
        """Pictures."""
        return len(self.content_ids)

    @property
    def outgrown(self) -> bool:
        """Whether a new one should be made: of too few pictures for what it holds, or not to be measured any more."""
        return len(self) > _OUTGROWN * self.widths.pictures or self.probes.worn(len(self))

    def add(
        self, content_ids: NDArray[np.int64], checksums: NDArray[np.int64], embeddings: NDArray[np.float16]
    ) -> None:
        """Add n pictures that are not in it: ids (n,), checksums (n,), embeddings (n, 32, 256)."""
        exact = embeddings.astype(np.float32)
        projected = self.code.project(exact)
        before = len(self)
        # In place: this is most of what a large library takes.
        self.blocks.resize((before + len(content_ids), BLOCK_BYTES), refcheck=False)
        self.blocks[before:] = self.code.blocks(projected)
        self.means.add_with_ids(np.ascontiguousarray(projected.mean(axis=1)), content_ids)
        self.content_ids = np.concatenate([self.content_ids, content_ids])
        self.checksums = np.concatenate([self.checksums, checksums])
        self._index_rows()
        self.probes.add(content_ids, exact)
        self.widths.unmeasured += len(content_ids)

    def remove(self, content_ids: NDArray[np.int64]) -> None:
        """Remove pictures that are in it."""
        stay = np.ones(len(self), bool)
        stay[self._rows[content_ids]] = False
        left = int(stay.sum())
        # The last ones move to where others went.
        holes, last = np.flatnonzero(~stay[:left]), left + np.flatnonzero(stay[left:])
        for rows in (self.blocks, self.content_ids, self.checksums):
            rows[holes] = rows[last]
        self.blocks.resize((left, BLOCK_BYTES), refcheck=False)
        self.content_ids, self.checksums = self.content_ids[:left].copy(), self.checksums[:left].copy()
        self.means.remove_ids(faiss.IDSelectorBatch(content_ids))
        self._index_rows()
        self.probes.remove(content_ids)
        self.widths.unmeasured += len(content_ids)

    def holds(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float16]) -> NDArray[np.bool_]:
        """Which of the pictures that are in it, (n,), are there with the codes of (n, 32, 256)."""
        blocks = self.code.blocks(self.code.project(embeddings.astype(np.float32)))
        # A product summed in another order may fall on the other side of the border between two codes.
        same: NDArray[np.bool_] = (blocks != self.blocks[self._rows[content_ids]]).mean(axis=1) < 0.02
        return same

    def count(self, among: NDArray[np.int64] | None) -> int:
        """How many of these pictures are in it; None stands for all."""
        return len(self) if among is None else len(self._held(among))

    def nearest(
        self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None, read: Read
    ) -> list[Neighbour]:
        """The k pictures of largest similarity, nearly all of them; their similarities, and so their order, are exact.

        query: (256,) unit length. among: the only pictures to look at; None looks at all. Of no more pictures than are
        rescored, the result is exact. A picture that ``read`` does not give is left out.
        """
        k = min(k, self.count(among))
        if k <= 0:
            return []
        content_ids, embeddings = read(self._candidates(query, k, among))
        exact = VectorIndex()
        exact.add(content_ids, np.zeros_like(content_ids), embeddings)
        return exact.nearest(query, k, None)

    def keep_recall(self) -> None:
        """Measure recall if much has changed since it was, and widen the search if it has fallen below the aim."""
        if self.widths.unmeasured > _REMEASURED * len(self):
            self._measure()
            if self.widths.recall < AIM:
                self.choose_widths()

    def choose_widths(self) -> None:
        """Widen the search until it finds what it should, or is as wide as it may be."""
        while True:
            too_narrow, too_shallow = self._measure()
            wider, deeper = self.widths.breadth < _MOST_BREADTH, self.widths.depth < min(_MOST_DEPTH, len(self))
            if self.widths.recall >= _TARGET or not (wider or deeper):
                return
            if wider and (too_narrow > too_shallow or not deeper):
                self.widths.breadth *= 2
            else:
                self.widths.depth *= 2

    def _measure(self) -> tuple[int, int]:
        """Set ``recall``. Returns how many pictures were lost in the first step, and in the second."""
        narrow = shallow = asked = 0
        for query, expected in self.probes.best(len(self)) if len(self) else ():
            projected = self.code.projection @ query
            breadth, depth = self._widths(TOP)
            broad = self._by_mean(projected, breadth, None)
            deep = self._by_vectors(projected, broad, depth)
            lost, missed = np.isin(expected, broad, invert=True), np.isin(expected, deep, invert=True)
            narrow += int(lost.sum())
            shallow += int((missed & ~lost).sum())
            asked += len(expected)
        self.widths.recall = 1 - (narrow + shallow) / max(asked, 1)
        self.widths.unmeasured = 0
        return narrow, shallow

    def _widths(self, k: int) -> tuple[int, int]:
        """Breadth and depth of a search for k: what is measured is for ten, and more pictures are not that much harder
        to tell from the rest.
        """
        more = math.sqrt(max(1.0, k / TOP))
        depth = max(round(self.widths.depth * more), 2 * k)
        return max(round(self.widths.breadth * more), 4 * depth), depth

    def _candidates(self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None) -> NDArray[np.int64]:
        breadth, depth = self._widths(k)
        projected = self.code.projection @ query
        content_ids = self.content_ids if among is None else self._held(among)
        if len(content_ids) > breadth:
            content_ids = self._by_mean(projected, breadth, None if among is None else content_ids)
        return self._by_vectors(projected, content_ids, depth)

    def _by_mean(
        self, projected: NDArray[np.float32], breadth: int, among: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        parameters = faiss.SearchParametersIVF(nprobe=1)
        if among is not None:
            chosen = np.zeros(len(self._rows), bool)
            chosen[among] = True
            parameters = faiss.SearchParametersIVF(
                nprobe=1, sel=faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
            )
        _, content_ids = self.means.search(projected[None], min(breadth, len(self)), params=parameters)
        found: NDArray[np.int64] = content_ids[0][content_ids[0] >= 0]
        return found

    def _by_vectors(
        self, projected: NDArray[np.float32], content_ids: NDArray[np.int64], depth: int
    ) -> NDArray[np.int64]:
        if len(content_ids) <= depth:
            return content_ids
        return content_ids[self.code.best(projected, self.blocks[self._rows[content_ids]], depth)]

    def _held(self, content_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        known = content_ids[content_ids < len(self._rows)]
        return known[self._rows[known] >= 0]

    def _index_rows(self) -> None:
        # Row by content id, −1 where there is none: ids are given in sequence, so the table has few holes.
        self._rows = np.full(int(self.content_ids.max(initial=0)) + 1, -1, np.int32)
        self._rows[self.content_ids] = np.arange(len(self.content_ids), dtype=np.int32)
