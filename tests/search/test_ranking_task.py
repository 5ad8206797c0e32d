import numpy as np
import pytest

from search._ranking_task import RankingTask


@pytest.fixture
def texts_to_photos() -> RankingTask:
    """Four texts, three photos; texts 0 and 1 are of photo 0."""
    return RankingTask(
        scores=np.array([[0.9, 0.1, 0.2], [0.3, 0.5, 0.4], [0.6, 0.6, 0.6], [0.2, 0.7, 0.1]], np.float32),
        query_group=np.array([0, 0, 1, 2]),
        gallery_group=np.array([0, 1, 2]),
        query_key=np.arange(4),
        gallery_key=np.array([0, 4, 8]),
    )


def test_ranks_by_similarity(texts_to_photos: RankingTask) -> None:
    assert texts_to_photos.ranks().tolist() == [1, 3, 2, 3]


def test_candidates_are_the_most_similar_first(texts_to_photos: RankingTask) -> None:
    assert texts_to_photos.candidates(2).tolist() == [[0, 2], [1, 2], [0, 1], [1, 0]]
    assert texts_to_photos.candidates(9).shape == (4, 3)
    assert texts_to_photos.candidates(0).shape == (4, 0)


def test_pairs_are_numbered_photo_times_texts_plus_text(texts_to_photos: RankingTask) -> None:
    assert texts_to_photos.pairs(texts_to_photos.candidates(2)).tolist() == [[0, 8], [5, 9], [2, 6], [7, 3]]


def test_reranking_orders_candidates_by_weighted_logit_plus_similarity(texts_to_photos: RankingTask) -> None:
    candidates = texts_to_photos.candidates(2)
    logits = np.array([[0.0, 1.0], [5.0, 0.0], [0.0, 0.1], [0.0, 9.0]], np.float32)
    # Text 0: the match of photo 2 (0.2 + 1) outdoes photo 0 (0.9). Texts 1 and 3: their photo is no candidate.
    assert texts_to_photos.reranked(candidates, logits, 1.0).tolist() == [2, 3, 1, 3]
    # At half the weight, photo 0 stays first.
    assert texts_to_photos.reranked(candidates, logits, 0.5).tolist() == [1, 3, 1, 3]


def test_the_best_of_several_right_answers_counts() -> None:
    photo_to_captions = RankingTask(
        scores=np.array([[0.1, 0.5, 0.4, 0.3]], np.float32),
        query_group=np.array([7]),
        gallery_group=np.array([7, 8, 9, 7]),
        query_key=np.array([0]),
        gallery_key=np.arange(4),
    )
    assert photo_to_captions.ranks().tolist() == [3]
    logits = np.array([[0.0, 0.0, 0.0, 2.0]], np.float32)
    assert photo_to_captions.reranked(np.array([[1, 2, 3, 0]]), logits[:, [1, 2, 3, 0]], 1.0).tolist() == [1]


def test_a_sample_is_seeded_and_keeps_the_gallery_whole(texts_to_photos: RankingTask) -> None:
    sampled = texts_to_photos.sample(2, np.random.default_rng(3))
    assert sampled.scores.shape == (2, 3)
    assert sampled.query_key.tolist() == texts_to_photos.sample(2, np.random.default_rng(3)).query_key.tolist()
    assert sampled.ranks().tolist() == texts_to_photos.ranks()[sampled.query_key].tolist()
    assert texts_to_photos.sample(None, np.random.default_rng(0)) is texts_to_photos
    assert texts_to_photos.sample(4, np.random.default_rng(0)) is texts_to_photos
