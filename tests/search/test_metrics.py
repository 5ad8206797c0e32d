import numpy as np
import pytest
from numpy.typing import NDArray

from search._metrics import area_under_roc, calibration_error, first_right_rank, recall


def rank_by_sorting(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> int:
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return 1 + next(place for place, index in enumerate(order) if right[index])


def test_rank_equals_that_of_a_stable_sort() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        scores = random.integers(0, 6, 12).astype(np.float32)  # many ties
        right = random.random(12) < 0.3
        right[random.integers(12)] = True
        assert first_right_rank(scores, right) == rank_by_sorting(scores, right)


def test_recall_counts_ranks() -> None:
    measured = recall(np.array([1, 1, 3, 5, 6, 10, 11, 200]), seed=0)
    assert (measured.r1, measured.r5, measured.r10, measured.median_rank) == (25.0, 50.0, 75.0, 5.5)


def test_bootstrap_intervals_are_seeded_and_hold_the_binomial_spread() -> None:
    ranks = np.where(np.arange(1000) < 300, 1, 20)
    measured = recall(ranks, seed=1)
    assert measured == recall(ranks, seed=1)
    assert measured != recall(ranks, seed=2)
    half_width = 1.96 * 100 * np.sqrt(0.3 * 0.7 / 1000)  # of a share of 30 % among 1,000, by the normal approximation
    assert measured.r1_ci == pytest.approx((30 - half_width, 30 + half_width), abs=0.5)
    assert measured.r1_ci == measured.r10_ci
    assert measured.median_rank_ci == (20.0, 20.0)


def test_recall_as_json_is_rounded() -> None:
    document = recall(np.array([1, 2, 3]), seed=0).as_dict()
    assert document["r1"] == 33.33
    assert document["median_rank"] == 2.0
    assert document["r5_ci"] == [100.0, 100.0]


def test_area_under_roc_is_the_share_of_ordered_pairs() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 8, 60) / 8
    positive = random.random(60) < 0.5
    pairs = [(p > n) + (p == n) / 2 for p in values[positive] for n in values[~positive]]
    assert area_under_roc(values, positive) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("probabilities", "positive", "error"),
    [
        ([0.0, 0.0, 1.0, 1.0], [False, False, True, True], 0.0),
        ([0.0, 0.0, 1.0, 1.0], [True, True, False, False], 1.0),
        ([0.7] * 10, [True] * 7 + [False] * 3, 0.0),
        ([0.9] * 10 + [0.1] * 10, [True] * 5 + [False] * 15, 0.25),
    ],
)
def test_calibration_error_of_hand_made_bins(probabilities: list[float], positive: list[bool], error: float) -> None:
    assert calibration_error(np.array(probabilities), np.array(positive)) == pytest.approx(error)
