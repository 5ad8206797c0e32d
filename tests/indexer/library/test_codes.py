"""Searching codes equals comparing the decoded vectors, to the precision of FAISS's tables."""

from pathlib import Path

import numpy as np
import pytest

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._blocks import Blocks
from indexer.library._codes import Code
from tests.disks import no_file_larger_than
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
    products = (decoded @ (code.subspace.projection @ query)).reshape(-1, QUERY_TOKENS) + query @ code.subspace.centre

    blocks = Blocks()
    blocks.put(np.arange(300), code.blocks(embeddings))
    ids = rng.integers(0, len(embeddings), count)  # some more than once
    k = min(10, count)
    near = code.best(query, blocks, ids, k, margin)

    least = np.sort(products[np.unique(ids)].max(axis=1))[-min(k, len(np.unique(ids)))] - margin
    assert (np.diff(near.products) <= 0).all()
    np.testing.assert_allclose(near.products, products[near.content_ids, near.tokens], atol=PRECISION)
    assert (near.products >= least - PRECISION).all()
    wanted = {(i, token) for i, token in np.argwhere(products > least + PRECISION).tolist() if i in set(ids.tolist())}
    assert wanted <= set(zip(near.content_ids.tolist(), near.tokens.tolist(), strict=True))
    assert len(set(near.content_ids.tolist())) >= min(k, len(np.unique(ids)))


def test_blocks_are_the_pictures_own_in_memory_and_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    expected = rng.integers(0, 255, (100, 2048), dtype=np.uint8)
    blocks = Blocks()
    blocks.put(np.array([5, 3]), expected[[5, 3]])
    blocks.put(np.array([90]), expected[[90]])
    path = blocks.save(tmp_path, np.array([90, 3, 5]))
    np.testing.assert_array_equal(blocks.take(np.array([3, 90, 5])), expected[[3, 90, 5]])

    reader, before = Blocks(path), path.stat().st_ino
    blocks.put(np.array([95, 40]), expected[[95, 40]])
    blocks.put(np.array([3]), expected[[7]])  # another picture of that number
    ids = np.array([40, 3, 95, 5])
    np.testing.assert_array_equal(blocks.take(ids), expected[[40, 7, 95, 5]])
    assert blocks.save(tmp_path, ids) == path
    assert path.stat().st_ino == before
    np.testing.assert_array_equal(blocks.take(ids), expected[[40, 7, 95, 5]])
    np.testing.assert_array_equal(Blocks(path).take(ids), expected[[40, 7, 95, 5]])
    np.testing.assert_array_equal(reader.take(np.array([5, 90])), expected[[5, 90]])
    reader.load()
    assert reader._loader is not None
    reader._loader.join()
    path.unlink()  # from here on it is in memory
    assert not isinstance(reader._state.stored, np.memmap)
    np.testing.assert_array_equal(reader.take(np.array([5, 90])), expected[[5, 90]])


def test_blocks_of_a_file_that_another_writer_deleted_are_written_again(tmp_path: Path) -> None:
    block = np.random.default_rng(2).integers(0, 255, (2, 2048), dtype=np.uint8)
    blocks = Blocks()
    blocks.put(np.array([1]), block[:1])
    first = blocks.save(tmp_path, np.array([1]))
    first.unlink()
    blocks.put(np.array([2]), block[1:])
    second = blocks.save(tmp_path, np.array([1, 2]))
    assert second != first
    np.testing.assert_array_equal(Blocks(second).take(np.array([1, 2])), block)


def test_a_full_disk_leaves_no_half_written_file(tmp_path: Path) -> None:
    blocks = Blocks()
    blocks.put(np.array([1]), np.ones((1, 2048), np.uint8))
    with no_file_larger_than(1000), pytest.raises(OSError, match="File too large"):
        blocks.save(tmp_path, np.array([1]))
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(blocks.take(np.array([1])), np.ones((1, 2048), np.uint8))
