"""Search equals brute force over all embeddings: on the CPU, and through a copy of the vectors on a GPU.

The GPU's index is a CPU's here, which has the same limits.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library import Filters, IndexedFile, Library, NewContent, _gpu_scan
from tests.indexer.library.pictures import FACTS, MODEL, brute_force, random_embeddings, unit

QUERY = unit(np.random.default_rng(99).standard_normal(EMBEDDING_SIZE))


class GpuIndex:
    """Does what an index on a GPU does and no more, for one thread at a time, in so many rows of memory."""

    def __init__(self, memory: int) -> None:
        self.searches = 0
        self._vectors = faiss.IndexFlatIP(EMBEDDING_SIZE)
        self._memory = memory
        self._used = threading.Lock()

    @property
    def ntotal(self) -> int:
        return int(self._vectors.ntotal)

    def add(self, vectors: NDArray[np.float32]) -> None:
        if self.ntotal + len(vectors) > self._memory:
            raise RuntimeError("Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc fail")
        self._vectors.add(vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        assert self._used.acquire(blocking=False), "two threads at once"
        assert k <= 2048, "GPU index only supports min/max-K selection up to 2048"
        self.searches += 1
        found: tuple[NDArray[np.float32], NDArray[np.int64]] = self._vectors.search(queries, k)
        self._used.release()
        return found


class Gpu:
    """The indexes that were made on it."""

    def __init__(self, memory: int = 2**62) -> None:
        self.memory = memory
        self.indexes: list[GpuIndex] = []

    def index(self) -> GpuIndex:
        self.indexes.append(GpuIndex(self.memory))
        return self.indexes[-1]


@pytest.fixture(autouse=True, params=["cpu", "gpu"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gpu | None:
    """The GPU that searches go through, if there is one."""
    if request.param == "cpu":
        return None
    there = Gpu()
    monkeypatch.setattr(_gpu_scan, "gpu_index", there.index)
    return there


def fill(library: Library, photos: Path, embeddings: NDArray[np.float16]) -> list[int]:
    """One file a picture, in folders 0, 1, … of seven pictures each; gives the content ids."""
    names = [f"{number:05}" for number in range(len(embeddings))]
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        writer.commit(
            [IndexedFile(folder, f"{int(name) // 7}/{name}.jpg", 1, 1, name) for name in names],
            [NewContent(name, FACTS, embeddings=each) for name, each in zip(names, embeddings, strict=True)],
        )
        known = writer.find_contents(names)
    return [known[name].content_id for name in names]


def nearest(
    library: Library, query: NDArray[np.float32], k: int, filters: Filters | None = None
) -> list[tuple[int, float]]:
    return [(each.content_id, each.similarity) for each in library.nearest(query, k, filters or Filters())]


@pytest.fixture
def random_pictures() -> NDArray[np.float16]:
    return random_embeddings(np.random.default_rng(1), 300)


@pytest.mark.parametrize("k", [1, 2, 10, 299, 300, 1000])
def test_finds_the_pictures_that_brute_force_finds(
    library: Library, photos: Path, random_pictures: NDArray[np.float16], k: int
) -> None:
    ids = fill(library, photos, random_pictures)
    assert nearest(library, QUERY, k) == brute_force(QUERY, random_pictures, ids, k)


def test_finds_k_pictures_where_the_32_vectors_of_each_are_nearly_equal(library: Library, photos: Path) -> None:
    # The first 32 k places of the vector search are then taken by k pictures.
    rng = np.random.default_rng(2)
    centres = unit(QUERY + 0.1 * rng.standard_normal((200, 1, EMBEDDING_SIZE)))
    collapsed = unit(centres + 1e-4 * rng.standard_normal((200, QUERY_TOKENS, EMBEDDING_SIZE))).astype(np.float16)
    ids = fill(library, photos, collapsed)
    for k in (1, 5, 60, 200):
        assert nearest(library, QUERY, k) == brute_force(QUERY, collapsed, ids, k)


def test_finds_the_second_picture_behind_many_vectors_of_the_first_ones(library: Library, photos: Path) -> None:
    rng = np.random.default_rng(3)
    near = unit(QUERY + 1e-3 * rng.standard_normal((40, QUERY_TOKENS, EMBEDDING_SIZE))).astype(np.float16)
    far = random_embeddings(rng, 40)
    ids = fill(library, photos, np.concatenate([far, near]))
    assert nearest(library, QUERY, 41) == brute_force(QUERY, np.concatenate([far, near]), ids, 41)


def test_orders_equal_similarities_by_content_id(library: Library, photos: Path) -> None:
    embeddings = random_embeddings(np.random.default_rng(4), 60)
    embeddings[10:50] = embeddings[3]
    ids = fill(library, photos, embeddings)
    query = unit(embeddings[3, 0].astype(np.float32))
    assert [each.content_id for each in library.nearest(query, 5)] == [ids[3], *ids[10:14]]
    assert nearest(library, query, 45) == brute_force(query, embeddings, ids, 45)


def test_the_smallest_difference_that_fp16_can_hold_decides(library: Library, photos: Path) -> None:
    # Far below what a float32 sum over 256 products is sure of.
    embeddings = np.zeros((50, QUERY_TOKENS, EMBEDDING_SIZE), np.float16)
    embeddings[:, :, 0] = 1
    for number in range(50):
        embeddings[number, number % QUERY_TOKENS, 1] = np.float16(6e-8) * (number % 25)
    ids = fill(library, photos, embeddings)
    query = np.zeros(EMBEDDING_SIZE, np.float32)
    query[1] = 1
    for k in (1, 3, 30):
        assert nearest(library, query, k) == brute_force(query, embeddings, ids, k)


@pytest.mark.parametrize("k", [1, 4, 50])
def test_filters_go_into_the_search(
    library: Library, photos: Path, random_pictures: NDArray[np.float16], k: int
) -> None:
    ids = fill(library, photos, random_pictures)
    for folder in (0, 11, 42):
        inside = slice(7 * folder, min(7 * folder + 7, 300))
        found = nearest(library, QUERY, k, Filters(folder=photos / str(folder)))
        assert found == brute_force(QUERY, random_pictures[inside], ids[inside], k)


def test_a_filter_that_one_photo_passes_finds_it_however_unlike_it_is(
    library: Library, photos: Path, random_pictures: NDArray[np.float16]
) -> None:
    ids = fill(library, photos, random_pictures)
    worst = brute_force(QUERY, random_pictures, ids, 300)[-1]
    with library.writer() as writer:
        (folder,) = writer.folders()
        digest = f"{ids.index(worst[0]):05}"
        writer.commit([IndexedFile(folder, "alone/photo.jpg", 1, 1, digest)], [])
    assert nearest(library, QUERY, 10, Filters(folder=photos / "alone")) == [worst]
    assert library.considered(Filters(folder=photos / "alone")) == 1


def test_finds_nothing_where_nothing_passes_or_nothing_is(library: Library, photos: Path) -> None:
    assert library.nearest(QUERY, 10) == []
    assert library.considered() == 0
    fill(library, photos, random_embeddings(np.random.default_rng(5), 3))
    assert library.nearest(QUERY, 10, Filters(folder=photos / "elsewhere")) == []
    assert library.considered(Filters(folder=photos / "elsewhere")) == 0
    assert library.nearest(QUERY, 0) == []


def test_a_picture_in_many_files_is_one_neighbour(library: Library, photos: Path) -> None:
    embeddings = random_embeddings(np.random.default_rng(6), 2)
    ids = fill(library, photos, embeddings)
    with library.writer() as writer:
        (folder,) = writer.folders()
        writer.commit([IndexedFile(folder, f"copy-{number}.jpg", 1, 1, "00000") for number in range(50)], [])
    assert nearest(library, QUERY, 10) == brute_force(QUERY, embeddings, ids, 10)
    assert library.considered() == 2
    assert len(library.photos_of(ids)[ids[0]]) == 51


@pytest.mark.parametrize(
    "query", [np.zeros(255, np.float32), np.full(256, np.nan, np.float32), np.zeros((1, 256), np.float32)]
)
def test_refuses_what_is_no_query(library: Library, query: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="256 finite values"):
        library.nearest(query, 1)


def test_stays_exact_through_adding_removing_and_coming_back(library: Library, photos: Path) -> None:
    embeddings = random_embeddings(np.random.default_rng(7), 120)
    ids = fill(library, photos, embeddings[:80])
    assert nearest(library, QUERY, 20) == brute_force(QUERY, embeddings[:80], ids, 20)
    with library.writer() as writer:
        (folder,) = writer.folders()
        files = writer.known_files(folder)
        gone = [files[path] for path in sorted(files, key=lambda path: path[-9:])[20:50]]
        writer.mark_missing([known.photo_id for known in gone])
        stay = [*range(20), *range(50, 80)]
        assert nearest(library, QUERY, 60) == brute_force(QUERY, embeddings[stay], [ids[place] for place in stay], 60)
        writer.refresh_vectors()
        more = [f"{number:05}" for number in range(80, 120)]
        writer.commit(
            [IndexedFile(folder, f"{name}.jpg", 1, 1, name) for name in more],
            [NewContent(name, FACTS, embeddings=embeddings[int(name)]) for name in more],
        )
        known_more = writer.find_contents(more)
        ids += [known_more[name].content_id for name in more]
        stay += range(80, 120)
        assert nearest(library, QUERY, 60) == brute_force(QUERY, embeddings[stay], [ids[place] for place in stay], 60)
        # Back: their ids are smaller than those of pictures that are in the index by now.
        back = {known.photo_id: path for path, known in files.items() if known in gone[:10]}
        writer.commit(
            [IndexedFile(folder, path, 1, 1, path[-9:-4], photo_id=photo_id) for photo_id, path in back.items()], []
        )
        stay = sorted([*stay, *range(20, 30)])
        expected = brute_force(QUERY, embeddings[stay], [ids[place] for place in stay], 90)
        assert nearest(library, QUERY, 90) == expected
        writer.refresh_vectors()
    with Library.open(library.directory) as reopened:
        assert nearest(reopened, QUERY, 90) == expected
        assert reopened.verify().findings == ()


def test_a_gpu_answers_what_it_can(library: Library, photos: Path, gpu: Gpu | None) -> None:
    embeddings = random_embeddings(np.random.default_rng(8), 300)
    ids = fill(library, photos, embeddings)
    found = nearest(library, QUERY, 10)
    assert found == brute_force(QUERY, embeddings, ids, 10)
    if gpu is not None:
        (index,) = gpu.indexes
        assert (index.ntotal, index.searches) == (300 * QUERY_TOKENS, 1)
        nearest(library, QUERY, 10, Filters(folder=photos / "0"))  # a GPU knows no filter
        nearest(library, QUERY, 300)  # takes more neighbours than it can give
        assert index.searches == 1
        nearest(library, QUERY, 10)
        assert (gpu.indexes, index.searches) == ([index], 2)


@pytest.mark.parametrize("memory", [0, 100])
def test_a_gpu_without_enough_memory_is_done_without(
    library: Library, photos: Path, gpu: Gpu | None, memory: int
) -> None:
    embeddings = random_embeddings(np.random.default_rng(9), 9)
    ids = fill(library, photos, embeddings)
    if gpu is not None:
        gpu.memory = memory
    for _ in range(3):
        assert nearest(library, QUERY, 3) == brute_force(QUERY, embeddings, ids, 3)
    if gpu is not None:
        assert [index.searches for index in gpu.indexes] == [0]


def test_threads_take_turns_on_a_gpu(library: Library, photos: Path) -> None:
    embeddings = random_embeddings(np.random.default_rng(10), 200)
    ids = fill(library, photos, embeddings)
    expected = brute_force(QUERY, embeddings, ids, 10)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: nearest(library, QUERY, 10), range(64)))
