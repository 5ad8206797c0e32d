"""One direction of a retrieval evaluation: queries, the gallery they rank, and which answers are right."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from search._metrics import first_right_rank


@dataclasses.dataclass(frozen=True, slots=True)
class RankingTask:
    """Q queries that each rank a gallery of G: texts rank photos, or photos rank texts."""

    scores: NDArray[np.float32]
    """(Q, G) ITC similarities."""
    query_group: NDArray[np.int64]
    """(Q,): a query's right answers are the ones of its group."""
    gallery_group: NDArray[np.int64]
    """(G,)."""
    query_key: NDArray[np.int64]
    """(Q,): plus the gallery's key, the number of the photo–text pair."""
    gallery_key: NDArray[np.int64]
    """(G,)."""

    def sample(self, count: int | None, random: np.random.Generator) -> "RankingTask":
        """Take ``count`` random queries, or all of them; the gallery stays whole."""
        if count is None or count >= len(self.query_key):
            return self
        rows = np.sort(random.choice(len(self.query_key), count, replace=False))
        return dataclasses.replace(
            self, scores=self.scores[rows], query_group=self.query_group[rows], query_key=self.query_key[rows]
        )

    def candidates(self, count: int) -> NDArray[np.int64]:
        """(Q, k): the most similar of each query, best first; of equal ones the earlier."""
        return np.array([np.argsort(-row, kind="stable")[:count] for row in self.scores], np.int64)

    def pairs(self, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q, k) numbers of the photo–text pairs of candidates (Q, k)."""
        return self.query_key[:, None] + self.gallery_key[candidates]

    def ranks(self) -> NDArray[np.int64]:
        """(Q,): rank of each query's best right answer by similarity alone, 1 the first."""
        rows = zip(self.scores, self.query_group, strict=True)
        return np.array([first_right_rank(row, self.gallery_group == group) for row, group in rows], np.int64)

    def reranked(
        self, candidates: NDArray[np.int64], logits: NDArray[np.float32], match_weight: float
    ) -> NDArray[np.int64]:
        """(Q,): as ``ranks``, after candidates (Q, k) are ordered by ``match_weight * logit + similarity``.

        What is not a candidate stays behind them, where it was.
        """
        ranks = self.ranks()
        for query, chosen in enumerate(candidates):
            right = self.gallery_group[chosen] == self.query_group[query]
            if right.any():
                ranks[query] = first_right_rank(match_weight * logits[query] + self.scores[query, chosen], right)
        return ranks
