"""The vectors of a large library in memory: 64 bytes each, searched in three steps, the last of them exact."""

import dataclasses
import math
from collections.abc import Callable

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE
from indexer.library._blocks import BITS, BLOCK_BYTES, Blocks
from indexer.library._codes import Code, Subspace
from indexer.library._recall import TOP, Probes
from indexer.library._records import Neighbour
from indexer.library._vectors import VectorIndex

MEAN_DIMENSIONS = 128
"""Of the subspace in which the means of pictures are kept."""
_MEAN_PAIRS = MEAN_DIMENSIONS // 2
RAM_BYTES = BLOCK_BYTES + _MEAN_PAIRS * BITS // 8 + 8 + 8 + 8 + 4
"""A picture: its block; code and id of its mean; content id, checksum, and its place in the table of rows."""
COMPRESSED_KIND = f"compressed ({BITS}-bit codes of pairs; rescored exactly)"

AIM = 0.99
"""Recall below this is repaired…"""
_TARGET = 0.9975
"""…and each of the two steps by codes is made wide enough to keep this share of what it should."""
_LEAST_BREADTH, _MOST_BREADTH = 512, 32768
_SPARE = 1.25
"""What is measured to suffice, times this: what people ask is another sample than the probes."""
_MOST_READ = 1024
"""Pictures a search for ten reads, at most: 17 MB. What recall there is then is told, and not improved."""
_PIECE = 128
"""Pictures that are read and compared at once: two megabytes, which stay in a processor's cache."""
_FEW = 128
"""Of so many, all are read: quicker than to look at their codes first."""
TRAINING_PICTURES = 4096
"""Pictures that codes are made from, at most."""
_TRAINING_VECTORS = 32768
_REMEASURED = 0.01
"""Recall is measured again when this share of the pictures has changed."""
_OUTGROWN = 4
"""How many times as many pictures as the codes were made for call for new codes."""

Read = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.float16]]]
"""Reads pictures' embeddings where they are exact: of ids (n,), with their checksums (n,), those that are there (m,)
and their (m, 32, 256)."""


@dataclasses.dataclass(slots=True)
class Widths:
    """How much of the library a search for ten pictures looks at, and what that was measured to reach."""

    breadth: int = _LEAST_BREADTH
    """Pictures whose 32 codes are looked at."""
    margin: float = 0.0
    """How far below the k-th best a picture may be by its codes, and is still compared exactly."""
    recall: float = 1.0
    """Share of the best ten pictures that are found."""
    pictures: int = 0
    """How many the codes were made for."""
    unmeasured: int = 0
    """Pictures that came or went since ``recall`` was measured."""


class CompressedIndex:
    """Index over the embeddings of pictures, by codes; what it finds is rescored from vectors that are read.

    A search compares the query with one code a picture, of the mean of its 32 vectors; with the codes of the 32 vectors
    of the best of those, ``breadth`` of them; and exactly with the pictures that are by these, max-similarity, less
    than ``margin`` below the k-th best. Every step is a scan, of no more than it needs: the three have no part that
    could fail to look where a query lies, as cells of an inverted file do for texts, which lie apart from photos.
    Searching is safe from several threads as long as none changes it.
    """

    def __init__(
        self,
        code: Code,
        mean_subspace: Subspace,
        means: faiss.IndexIVFPQFastScan,
        probes: Probes,
        widths: Widths,
        blocks: Blocks,
        content_ids: NDArray[np.int64],
        checksums: NDArray[np.int64],
    ) -> None:
        self.code, self.mean_subspace, self.means = code, mean_subspace, means
        self.probes, self.widths = probes, widths
        self.blocks = blocks
        self.content_ids, self.checksums = content_ids, checksums
        """In the order of ``blocks``; the checksums are those of the catalog."""
        self._index_rows()

    @classmethod
    def trained(cls, embeddings: NDArray[np.float16], pictures: int) -> "CompressedIndex":
        """An empty one for so many pictures, made from (n, 32, 256) of some of them, n at least 32."""
        rng = np.random.default_rng(0)
        every = embeddings.reshape(-1, EMBEDDING_SIZE)
        code = Code.trained(every[rng.permutation(len(every))[:_TRAINING_VECTORS]].astype(np.float32), rng)
        averages = embeddings.mean(axis=1, dtype=np.float32)
        subspace = Subspace.of(averages, MEAN_DIMENSIONS, rng)
        means = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(MEAN_DIMENSIONS), MEAN_DIMENSIONS, 1, _MEAN_PAIRS, BITS, faiss.METRIC_INNER_PRODUCT
        )
        means.by_residual = False
        means.train(subspace.project(averages))
        empty = np.empty(0, np.int64)
        probes, widths = Probes.made_from(embeddings, rng), Widths(pictures=pictures)
        return cls(
            code, subspace, means, probes, widths, Blocks(np.empty((0, BLOCK_BYTES), np.uint8)), empty, empty.copy()
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
        self.blocks.append(self.code.blocks(exact))
        self.means.add_with_ids(self.mean_subspace.project(exact.mean(axis=1)), content_ids)
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
        self.blocks.move(last, holes)
        self.blocks.truncate(left)
        for rows in (self.content_ids, self.checksums):
            rows[holes] = rows[last]
        self.content_ids, self.checksums = self.content_ids[:left].copy(), self.checksums[:left].copy()
        self.means.remove_ids(faiss.IDSelectorBatch(content_ids))
        self._index_rows()
        self.probes.remove(content_ids)
        self.widths.unmeasured += len(content_ids)

    def holds(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float16]) -> NDArray[np.bool_]:
        """Which of the pictures that are in it, (n,), are there with the codes of (n, 32, 256)."""
        blocks = self.code.blocks(embeddings.astype(np.float32))
        # A product summed in another order may fall on the other side of the border between two codes.
        same: NDArray[np.bool_] = (blocks != self.blocks.take(self._rows[content_ids])).mean(axis=1) < 0.02
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
        candidates = self._candidates(query, k, among)
        found = list[Neighbour]()
        for start in range(0, len(candidates), _PIECE):
            piece = candidates[start : start + _PIECE]
            content_ids, embeddings = read(piece, self.checksums[self._rows[piece]])
            exact = VectorIndex(once=True)
            exact.add(content_ids, np.zeros_like(content_ids), embeddings)
            found += exact.nearest(query, k, None)
        found.sort(key=lambda each: (-each.similarity, each.content_id))
        return found[:k]

    def keep_recall(self) -> None:
        """Measure recall if much has changed since it was, and widen the search if it has fallen below the aim."""
        if self.widths.unmeasured > _REMEASURED * len(self):
            self._record(self._shortfalls())
            if self.widths.recall < AIM:
                self.choose_widths()

    def choose_widths(self) -> None:
        """Widen the search until it finds what it should, or is as wide as it may be."""
        shortfalls = self._shortfalls()
        while np.isinf(shortfalls).mean() > 1 - _TARGET and self.widths.breadth < min(_MOST_BREADTH, len(self)):
            self.widths.breadth *= 2
            shortfalls = self._shortfalls()
        within = np.sort(shortfalls[np.isfinite(shortfalls)])
        if len(within):
            needed = math.ceil(_TARGET * len(within))
            self.widths.margin = _SPARE * max(float(within[needed - 1]), 0.0)
        self._record(shortfalls)

    def _record(self, shortfalls: NDArray[np.float32]) -> None:
        self.widths.recall = float((shortfalls <= self.widths.margin).mean()) if len(shortfalls) else 1.0
        self.widths.unmeasured = 0

    def _shortfalls(self) -> NDArray[np.float32]:
        """Of each picture that a probe should find, how far below the tenth best it is by its codes: the margin that it
        takes to find it. Infinity where none would do.
        """
        taken = []
        for query, expected in self.probes.best(len(self)) if len(self) else ():
            broad = self._by_mean(query, self._breadth(TOP), None)
            most = min(_MOST_READ, len(broad))
            places, products = self.code.best(query, self.blocks, self._rows[broad], most, 0.0)
            of = dict(zip(broad[places].tolist(), products.tolist(), strict=True))
            tenth = products[min(TOP, len(products)) - 1]
            taken.append(tenth - np.array([of.get(content_id, -np.inf) for content_id in expected.tolist()]))
        return np.concatenate(taken, dtype=np.float32) if taken else np.empty(0, np.float32)

    def _breadth(self, k: int) -> int:
        # What is measured is for ten, and more pictures are not that much harder to tell from the rest.
        return max(round(self.widths.breadth * math.sqrt(max(1.0, k / TOP))), 4 * k)

    def _candidates(self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None) -> NDArray[np.int64]:
        breadth = self._breadth(k)
        content_ids = self.content_ids if among is None else self._held(among)
        if len(content_ids) > breadth:
            content_ids = self._by_mean(query, breadth, None if among is None else content_ids)
        if len(content_ids) <= max(k, _FEW):
            return content_ids
        places, _ = self.code.best(query, self.blocks, self._rows[content_ids], k, self.widths.margin)
        return content_ids[places[: max(_MOST_READ, 2 * k)]]

    def _by_mean(self, query: NDArray[np.float32], breadth: int, among: NDArray[np.int64] | None) -> NDArray[np.int64]:
        parameters = faiss.SearchParametersIVF(nprobe=1)
        if among is not None:
            chosen = np.zeros(len(self._rows), bool)
            chosen[among] = True
            parameters = faiss.SearchParametersIVF(
                nprobe=1, sel=faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
            )
        turned = self.mean_subspace.projection @ query
        _, content_ids = self.means.search(turned[None], min(breadth, len(self)), params=parameters)
        found: NDArray[np.int64] = content_ids[0][content_ids[0] >= 0]
        return found

    def _held(self, content_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        known = content_ids[content_ids < len(self._rows)]
        return known[self._rows[known] >= 0]

    def _index_rows(self) -> None:
        # Row by content id, −1 where there is none: ids are given in sequence, so the table has few holes.
        self._rows = np.full(int(self.content_ids.max(initial=0)) + 1, -1, np.int32)
        self._rows[self.content_ids] = np.arange(len(self.content_ids), dtype=np.int32)
