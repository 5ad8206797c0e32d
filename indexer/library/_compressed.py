"""The vectors of a large library in memory: 64 bytes each, searched in three steps, the last of them exact."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._blocks import BITS, BLOCK_BYTES, Blocks
from indexer.library._codes import Code, NearVectors, first_places
from indexer.library._means import MEAN_BYTES, Means
from indexer.library._recall import TOP, Probe, Probes
from indexer.library._records import Neighbour
from indexer.library._vector_ids import vector_ids
from indexer.library._vectors import ROUNDING, exact_similarities

RAM_BYTES = BLOCK_BYTES + MEAN_BYTES + 8 + 8 + 4
"""A picture: its block, its mean, content id, checksum, and its place in the table of rows."""
COMPRESSED_KIND = f"compressed ({BITS}-bit codes of pairs; rescored exactly)"

AIM = 0.99
"""Recall below this is repaired…"""
_TARGET = 0.995
"""…and each of the two steps by codes is made wide enough to keep this share of what it should."""
_LEAST_BREADTH, _MOST_BREADTH = 512, 32768
_MOST_GLANCED = 4096
"""Single vectors a search for ten reads, at most: 2 MB. What recall there is then is told, and not improved."""
_SELECTED = 1.25
"""The margin is this many times as wide among fewer pictures than a search looks at: there it costs little, and the
best are less alike than those by which it was measured."""
_PIECE = 16
"""Pictures that are read whole at once."""
_GAINSAID = 0.2
"""A vector of which the product is so far from what its code says is not the picture's: of those that are, one in ten
thousand is off by more than 0.11."""
_FEW = 128
"""Of so many, all are read: quicker than to look at their codes first."""
TRAINING_PICTURES = 4096
"""Pictures that codes are made from, at most."""
_TRAINING_VECTORS = 32768
_REMEASURED = 0.01
"""Recall is measured again when this share of the pictures has changed."""
_OUTGROWN = 4
"""How many times as many pictures as the codes were made for call for new codes."""


class Exact(Protocol):
    """Reads exact embeddings."""

    def vectors(self, content_ids: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.float16]:
        """(n, 256): of each of the pictures (n,) the vector of a query token (n,), unchecked; zeros if not at hand."""
        ...

    def embeddings(
        self, content_ids: NDArray[np.int64], checksums: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Of the pictures (n,), with these checksums (n,), those that are there (m,), and their (m, 32, 256)."""
        ...


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
    typical: bool = False
    """Whether the index was made, and its recall is measured, with typical queries by the model."""
    unmeasured: int = 0
    """Pictures that came or went since ``recall`` was measured."""


class CompressedIndex:
    """Index over the embeddings of pictures, by codes; what it finds is rescored from vectors that are read.

    A search compares the query with one code a picture, of a weighted mean of its 32 vectors; with the codes of the 32
    vectors of the best of those, ``breadth`` of them; and exactly with the vectors that are by these less than
    ``margin`` below that of the k-th best picture. The best pictures are then read whole. Every step is a scan, of no
    more than it needs: none could fail to look where a query lies, as cells of an inverted file do for texts, which
    lie apart from photos. Searching is safe from several threads as long as none changes it.
    """

    def __init__(
        self,
        code: Code,
        means: Means,
        probes: Probes,
        widths: Widths,
        blocks: Blocks,
        content_ids: NDArray[np.int64],
        checksums: NDArray[np.int64],
    ) -> None:
        self.code, self.means = code, means
        self.probes, self.widths = probes, widths
        self.blocks = blocks
        self.content_ids, self.checksums = content_ids, checksums
        """The checksums are those of the catalog."""
        self._searched = False
        self._index_rows()

    @classmethod
    def trained(
        cls, embeddings: NDArray[np.float16], pictures: int, queries: NDArray[np.float32] | None
    ) -> "CompressedIndex":
        """An empty one for so many pictures, made from (n, 32, 256) of some of them, n at least 32.

        queries: (q, 256), typical ones by the model; None if they are not known.
        """
        rng = np.random.default_rng(0)
        every = embeddings.reshape(-1, EMBEDDING_SIZE)
        code = Code.trained(every[rng.permutation(len(every))[:_TRAINING_VECTORS]].astype(np.float32), rng)
        means = Means.trained(embeddings, queries, rng)
        empty = np.empty(0, np.int64)
        probes = Probes.made_from(embeddings, rng) if queries is None else Probes.asking(queries)
        widths = Widths(pictures=pictures, typical=queries is not None)
        return cls(code, means, probes, widths, Blocks(), empty, empty.copy())

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
        self.blocks.put(content_ids, self.code.blocks(exact))
        self.means.add(content_ids, exact)
        self.content_ids = np.concatenate([self.content_ids, content_ids])
        self.checksums = np.concatenate([self.checksums, checksums])
        self._index_rows()
        self.probes.add(content_ids, exact)
        self.widths.unmeasured += len(content_ids)

    def remove(self, content_ids: NDArray[np.int64]) -> None:
        """Remove pictures that are in it."""
        stay = np.ones(len(self), bool)
        stay[self._rows[content_ids]] = False
        self.content_ids, self.checksums = self.content_ids[stay], self.checksums[stay]
        self.means.remove(content_ids)
        self._index_rows()
        self.probes.remove(content_ids)
        self.widths.unmeasured += len(content_ids)

    def holds(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float16]) -> NDArray[np.bool_]:
        """Which of the pictures that are in it, (n,), are there with the codes of (n, 32, 256)."""
        blocks = self.code.blocks(embeddings.astype(np.float32))
        # A product summed in another order may fall on the other side of the border between two codes.
        same: NDArray[np.bool_] = (blocks != self.blocks.take(content_ids)).mean(axis=1) < 0.02
        return same

    def count(self, among: NDArray[np.int64] | None) -> int:
        """How many of these pictures are in it; None stands for all."""
        return len(self) if among is None else len(self._held(among))

    def nearest(
        self, query: NDArray[np.float32], k: int, among: NDArray[np.int64] | None, exact: Exact
    ) -> list[Neighbour]:
        """The k pictures of largest similarity, nearly all of them; their similarities, and so their order, are exact.

        query: (256,) unit length. among: the only pictures to look at; None looks at all. Of no more pictures than are
        read whole, the result is exact. A picture that ``exact`` does not have is left out.
        """
        held = None if among is None else self._held(among)
        k = min(k, len(self) if held is None else len(held))
        if k <= 0:
            return []
        if self._searched:  # a process for one search would have read them for nothing
            self.blocks.load()
        self._searched = True
        content_ids = self._broad(query, k, held)
        if len(content_ids) > max(k, _FEW):
            content_ids, likely = self._glanced(query, self._near(query, k, content_ids), exact)
        else:
            likely = np.full(len(content_ids), np.inf, np.float32)
        found = list[Neighbour]()
        for start in range(0, len(content_ids), _PIECE):
            if len(found) >= k and found[k - 1].similarity > likely[start] + ROUNDING:
                break
            found += self._rescored(query, content_ids[start : start + _PIECE], exact)
            found.sort(key=lambda each: (-each.similarity, each.content_id))
        return found[:k]

    def near(self, query: NDArray[np.float32], k: int) -> NearVectors:
        """The vectors that a search for k pictures, among all, compares exactly."""
        return self._near(query, k, self._broad(query, k, None))

    def _near(self, query: NDArray[np.float32], k: int, content_ids: NDArray[np.int64]) -> NearVectors:
        margin = self.widths.margin * (_SELECTED if len(content_ids) < self._breadth(k) else 1)
        near = self.code.best(query, self.blocks, content_ids, k, margin)
        return near[: max(_MOST_GLANCED, QUERY_TOKENS * k)]

    def _glanced(
        self, query: NDArray[np.float32], near: NearVectors, exact: Exact
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The pictures (n,), by their vectors that are near, and how similar they are by these; infinite where what is
        at hand cannot be theirs.
        """
        vectors = exact.vectors(near.content_ids, near.tokens).astype(np.float32)
        products = np.einsum("nd,d->n", vectors, query)  # not by BLAS, as in ``Subspace.turn``
        sound = (products != 0) & (np.abs(products - near.products) < _GAINSAID)  # not so if it is not finite
        products[~sound] = np.inf
        order = np.argsort(-products, kind="stable")
        best = order[first_places(near.content_ids[order])]
        return near.content_ids[best], products[best]

    def _rescored(self, query: NDArray[np.float32], content_ids: NDArray[np.int64], exact: Exact) -> list[Neighbour]:
        there, embeddings = exact.embeddings(content_ids, self.checksums[self._rows[content_ids]])
        similarities = exact_similarities(query, embeddings)
        return [Neighbour(*each) for each in zip(there.tolist(), similarities.tolist(), strict=True)]

    def keep_recall(self) -> None:
        """Measure recall if much has changed since it was, and widen the search if it has fallen below the aim."""
        if self.widths.unmeasured > _REMEASURED * len(self):
            self._measure()
            if self.widths.recall < AIM:
                self.choose_widths()

    def choose_widths(self) -> None:
        """Widen the search until it finds what it should, or is as wide as it may be."""
        asked = self._asked()
        while self._kept_by_means(asked) < _TARGET and self.widths.breadth < min(_MOST_BREADTH, len(self)):
            self.widths.breadth *= 2
        shortfalls = np.sort(self._shortfalls(asked))
        if len(shortfalls):
            needed = math.ceil(_TARGET * len(shortfalls))
            self.widths.margin = max(float(shortfalls[needed - 1]), 0.0)
        self._measure()

    def _measure(self) -> None:
        found = [
            np.isin(vector_ids(content_ids, tokens), self.near(query, TOP).vector_ids)
            for query, content_ids, tokens in self._asked()
        ]
        self.widths.recall = float(np.mean(found)) if found else 1.0
        self.widths.unmeasured = 0

    def _asked(self) -> list[Probe]:
        return self.probes.best(len(self)) if len(self) else []

    def _kept_by_means(self, asked: Sequence[Probe]) -> float:
        """Share of the pictures that the probes should find which are looked at by their codes."""
        kept = [np.isin(content_ids, self._broad(query, TOP, None)) for query, content_ids, _ in asked]
        return float(np.mean(kept)) if kept else 1.0

    def _shortfalls(self, asked: Sequence[Probe]) -> NDArray[np.float32]:
        """How far below the tenth best picture, by its code, the best vector of a picture is that a probe should find:
        the margin that it takes to find it. (n,), of all such pictures whose means do not leave them out.
        """
        taken = [np.empty(0, np.float32)]
        for query, content_ids, tokens in asked:
            broad = self._broad(query, TOP, None)
            tenth = self.code.best(query, self.blocks, broad, TOP, 0.0).kth_best(len(content_ids))
            own = self.code.best(query, self.blocks, content_ids, len(content_ids), math.inf)
            best = own[np.isin(own.vector_ids, vector_ids(content_ids, tokens))]
            taken.append(tenth - best[np.isin(best.content_ids, broad)].products)
        return np.concatenate(taken, dtype=np.float32)

    def _breadth(self, k: int) -> int:
        # What is measured is for ten, and more pictures are not that much harder to tell from the rest.
        return max(round(self.widths.breadth * math.sqrt(max(1.0, k / TOP))), 4 * k)

    def _broad(self, query: NDArray[np.float32], k: int, held: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The pictures that are looked at by their codes, of those that are chosen and in it; None stands for all."""
        breadth = self._breadth(k)
        content_ids = self.content_ids if held is None else held
        return self.means.best(query, breadth, held) if len(content_ids) > breadth else content_ids

    def _held(self, content_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        known = content_ids[content_ids < len(self._rows)]
        return known[self._rows[known] >= 0]

    def _index_rows(self) -> None:
        # Row by content id, −1 where there is none: ids are given in sequence, so the table has few holes.
        self._rows = np.full(int(self.content_ids.max(initial=0)) + 1, -1, np.int32)
        self._rows[self.content_ids] = np.arange(len(self.content_ids), dtype=np.int32)
