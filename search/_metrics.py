"""Measures of a ranking and of a probability."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)
"""Percentiles of a 95% interval."""
_BINS = 15


@dataclasses.dataclass(frozen=True, slots=True)
class Recall:
    """Recall@k in percent and the median rank of the first right answer, with 95% bootstrap intervals."""

    r1: float
    r5: float
    r10: float
    median_rank: float
    r1_ci: tuple[float, float]
    r5_ci: tuple[float, float]
    r10_ci: tuple[float, float]
    median_rank_ci: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """As JSON, rounded to two decimals."""
        return {field.name: np.round(getattr(self, field.name), 2).tolist() for field in dataclasses.fields(self)}


def recall(ranks: NDArray[np.int64], seed: int) -> Recall:
    """Measure the ranks (Q,) of Q queries' first right answers, 1 the best; the bootstrap resamples the queries."""
    random = np.random.default_rng(seed)
    resampled = np.array([_measures(random.choice(ranks, len(ranks))) for _ in range(_RESAMPLES)])
    r1, r5, r10, median_rank = _measures(ranks)
    low, high = np.percentile(resampled, _INTERVAL, axis=0)
    intervals = [(float(low[i]), float(high[i])) for i in range(len(low))]
    return Recall(r1, r5, r10, median_rank, *intervals)


def _measures(ranks: NDArray[np.int64]) -> tuple[float, float, float, float]:
    r1, r5, r10 = (100 * float(np.mean(ranks <= k)) for k in (1, 5, 10))
    return r1, r5, r10, float(np.median(ranks))


def first_right_rank(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> int:
    """Rank of the best right answer among scores (G,), 1 the best; of equal scores the earlier one is better.

    ``right`` (G,) marks the right answers, of which there must be at least one.
    """
    best = int(np.argmax(np.where(right, scores, -np.inf)))
    return 1 + int((scores > scores[best]).sum()) + int((scores[:best] == scores[best]).sum())


def area_under_roc(probabilities: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive gets a higher value than a negative, ties counted half (the Mann–Whitney U)."""
    negatives = np.sort(probabilities[~positive])
    below = np.searchsorted(negatives, probabilities[positive], side="left")
    not_above = np.searchsorted(negatives, probabilities[positive], side="right")
    return float((below + not_above).mean() / 2 / len(negatives))


def calibration_error(probabilities: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 equal bins (Naeini et al., 2015): how far a probability is from the truth.

    The mean over all pairs of |mean probability - share of positives| of the bin they fall into.
    """
    bins = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    stated = np.bincount(bins, weights=probabilities, minlength=_BINS)
    true = np.bincount(bins, weights=positive, minlength=_BINS)
    return float(np.abs(stated - true).sum() / len(probabilities))
