"""The training objectives against plain computations, and the order that bucketing keeps."""

import math

import numpy as np
import pytest
import torch

from scripts.training import losses
from scripts.training.calibration import expected_calibration_error
from scripts.training.evaluation import area_under_curve, recall
from scripts.training.texts import by_length


def test_the_soft_maximum_is_near_the_maximum() -> None:
    torch.manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(3, 32, 256), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(4, 256), dim=-1)
    hard = torch.einsum("iqd,td->itq", images, texts).amax(dim=-1)
    soft = losses.similarities(images, texts)
    assert (soft >= hard).all()
    assert (soft - hard).max() <= 0.02 * math.log(32)


def test_contrastive_loss_is_the_cross_entropy_of_both_directions() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, 0.7]])
    positive = torch.tensor([[True, False, False], [False, True, True]])
    temperature = 0.1

    def one_way(rows: np.ndarray, right: np.ndarray) -> float:
        logits = rows / temperature
        log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        target = right / right.sum(axis=1, keepdims=True) * 0.9 + 0.1 / rows.shape[1]
        return float(-(target * log_probability).sum(axis=1).mean())

    rows, right = similarity.numpy().astype(float), positive.numpy().astype(float)
    expected = (one_way(rows, right) + one_way(rows.T, right.T)) / 2
    assert losses.contrastive(similarity, positive, torch.tensor(temperature)).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_equal_query_tokens_pay_and_different_ones_do_not() -> None:
    equal = torch.ones(2, 32, 1)
    assert losses.diversity(equal).item() == pytest.approx(0.25)
    assert losses.diversity(torch.eye(32, 128).expand(2, -1, -1)).item() == 0


def test_a_negative_is_never_a_positive() -> None:
    similarity = torch.tensor([[5.0, 1.0, 0.0], [0.0, 9.0, 9.0]])
    positive = torch.tensor([[True, False, False], [False, True, True]])
    for hardness in (0.0, 20.0):
        drawn = torch.stack([losses.hard_negatives(similarity, positive, hardness) for _ in range(50)])
        assert not positive.gather(1, drawn.T).any()


def test_hard_negatives_are_the_similar_ones() -> None:
    similarity, positive = torch.tensor([[1.0, 0.9, 0.0]]), torch.tensor([[True, False, False]])
    drawn = [losses.hard_negatives(similarity, positive, 20.0).item() for _ in range(50)]
    assert set(drawn) == {1}


def test_bucketing_by_length_gives_the_rows_back_in_order() -> None:
    mask = (torch.arange(9) < torch.tensor([[3], [9], [5], [1], [7], [2]])).long()
    (lengths,) = by_length(mask, lambda rows, length: (mask[rows, :length].sum(dim=1),), parts=3)
    assert lengths.tolist() == [3, 9, 5, 1, 7, 2]


def test_recall_counts_the_best_of_several_right_photos() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.8], [0.9, 0.8, 0.1]])
    relevant = torch.tensor([[True, False, True], [False, False, True]])
    assert recall(scores, relevant) == {"r1": 0.0, "r5": 100.0, "r10": 100.0}


def test_area_under_curve_is_the_share_of_pairs_in_order() -> None:
    assert area_under_curve(torch.tensor([0.9, 0.4]), torch.tensor([0.5, 0.1])) == pytest.approx(0.75)


def test_calibration_error_of_a_known_case() -> None:
    probability = torch.tensor([0.9] * 10 + [0.1] * 10)
    matched = torch.tensor([True] * 7 + [False] * 3 + [False] * 10)
    assert expected_calibration_error(probability, matched) == pytest.approx(0.5 * 0.2 + 0.5 * 0.1, abs=1e-6)
