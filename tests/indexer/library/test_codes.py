"""Searching codes equals comparing the decoded vectors, to the precision of FAISS's tables."""

import numpy as np
import pytest

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._blocks import Blocks
from indexer.library._codes import Code
from tests.indexer.library.pictures import unit

PRECISION = 0.01
"""Of a product: the tables have 8 bits."""


@pytest.mark.parametrize("count", [1, 40, 5000], ids=["one", "one part", "several parts"])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_finds_what_is_within_the_margin_of_the_kth_best(count: int, margin: float) -> None:
    rng = np.random.default_rng(0)
    embeddings = unit(rng.standard_normal((300, QUERY_TOKENS, EMBEDDING_SIZE))).astype(np.float32)
    code = Code.trained(embeddings.reshape(-1, EMBEDDING_SIZE)[:4000], rng)
    query = unit(embeddings[7, 3] + 0.05 * rng.standard_normal(EMBEDDING_SIZE)).astype(np.float32)
    quantiser = code.scanner.pq
    decoded = quantiser.decode(quantiser.compute_codes(code.subspace.project(embeddings.reshape(-1, EMBEDDING_SIZE))))
    products = (decoded @ (code.subspace.projection @ query)).reshape(-1, QUERY_TOKENS).max(axis=1)

    rows = rng.integers(0, len(embeddings), count).astype(np.int32)
    k = min(10, count)
    places, found = code.best(query, Blocks(code.blocks(embeddings)), rows, k, margin)

    least = np.sort(products[rows])[-k] - margin
    assert len(places) == len(set(places.tolist())) >= k
    assert (np.diff(found) <= 0).all()
    np.testing.assert_allclose(found, products[rows][places], atol=PRECISION)
    assert (products[rows][places] >= least - PRECISION).all()
    assert set(np.flatnonzero(products[rows] > least + PRECISION)) <= set(places.tolist())


def test_rows_stay_themselves_while_others_come_and_go() -> None:
    rng = np.random.default_rng(1)
    stored, more = (rng.integers(0, 255, (count, 2048), dtype=np.uint8) for count in (50, 30))
    blocks = Blocks(stored.copy())
    blocks.append(more[:10])
    blocks.append(more[10:])
    expected = np.concatenate([stored, more])
    np.testing.assert_array_equal(blocks.take(np.arange(80)), expected)
    # The last ones move to where others went: in what was stored, and in what came.
    blocks.move(np.array([79, 78]), np.array([4, 60]))
    blocks.truncate(78)
    expected[[4, 60]] = expected[[79, 78]]
    np.testing.assert_array_equal(blocks.take(np.arange(78)), expected[:78])
    blocks.truncate(20)
    blocks.append(more)
    np.testing.assert_array_equal(blocks.take(np.arange(50)), np.concatenate([expected[:20], more]))
    assert len(blocks) == 50
