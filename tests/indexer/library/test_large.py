"""A library above the size of an exact scan: nearly the best pictures, by exact similarity, through every change."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library import Filters, IndexedFile, Library, NewContent
from indexer.library._blocks import BLOCK_BYTES
from indexer.library._compressed import AIM, CompressedIndex
from indexer.library._vectors import VectorIndex
from indexer.library._vectors_file import Origin, saved_at
from tests.indexer.library.pictures import FACTS, MODEL, brute_force, unit

PHOTOS = Path("/nowhere/photos")
EXACT_UP_TO = 100
COUNT = 1600
"""More than a search looks at, in breadth and in depth."""


def structured(rng: np.random.Generator, count: int) -> NDArray[np.float16]:
    """Embeddings of the geometry that a model's have: photos of few themes, 32 roles that differ in the same way in
    every photo, in a subspace with a decaying spectrum.
    """
    spectrum = (1 / np.sqrt(1 + np.arange(EMBEDDING_SIZE) / 8)).astype(np.float32)
    same = np.random.default_rng(0)
    themes = same.standard_normal((40, EMBEDDING_SIZE)) * spectrum
    roles = same.standard_normal((QUERY_TOKENS, EMBEDDING_SIZE)) * spectrum
    photos = themes[rng.integers(0, len(themes), count)] + rng.standard_normal((count, EMBEDDING_SIZE)) * spectrum
    own = rng.standard_normal((count, QUERY_TOKENS, EMBEDDING_SIZE)) * spectrum
    return unit(photos[:, None] + roles + 0.5 * own).astype(np.float16)


@pytest.fixture(scope="module")
def embeddings() -> NDArray[np.float16]:
    return structured(np.random.default_rng(1), COUNT + 200)


def texts(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """As a model's: away from the photos."""
    photos = structured(rng, count).astype(np.float32)
    return unit(unit(photos[:, 0] - photos.mean(axis=(0, 1))) + unit(rng.standard_normal((count, EMBEDDING_SIZE))))


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    """What is asked."""
    return texts(np.random.default_rng(2), 30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, embeddings: NDArray[np.float16]) -> Path:
    """A library of COUNT pictures, a tenth of them in folder 0, with its compressed index saved."""
    directory = tmp_path_factory.mktemp("large")
    with Library.create(directory / "library") as library:
        add(library, range(COUNT), embeddings)
        with library.writer() as writer:
            writer.keep_queries(texts(np.random.default_rng(3), 100))
    with Library.open(directory / "library", EXACT_UP_TO) as library, library.writer() as writer:
        writer.refresh_vectors()
    return directory / "library"


@pytest.fixture
def large(made: Path, tmp_path: Path) -> Iterator[Library]:
    shutil.copytree(made, tmp_path / "library")
    with Library.open(tmp_path / "library", EXACT_UP_TO) as library:
        yield library


def add(library: Library, numbers: range, embeddings: NDArray[np.float16]) -> None:
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(PHOTOS)
        writer.commit(
            [IndexedFile(folder, f"{number % 10}/{number}.jpg", 1, 1, str(number)) for number in numbers],
            [NewContent(str(number), FACTS, embeddings=embeddings[number]) for number in numbers],
        )


def index_of(library: Library) -> object:
    held = library._vectors._held
    return None if held is None else held.index


def recall(
    library: Library,
    queries: NDArray[np.float32],
    embeddings: NDArray[np.float16],
    numbers: list[int],
    filters: Filters | None = None,
) -> float:
    """Of the ten best of these pictures, by number; every similarity that is told must be exact, and in order."""
    with library.writer() as writer:
        known = writer.find_contents([str(number) for number in numbers])
        id_of = {number: known[str(number)].content_id for number in numbers}
    number_of = {content_id: number for number, content_id in id_of.items()}
    vectors = embeddings[numbers].astype(np.float64).reshape(-1, EMBEDDING_SIZE)
    similarities = (vectors @ queries.T).reshape(len(numbers), QUERY_TOKENS, -1).max(axis=1)
    found = 0
    for query, best in zip(queries, np.argsort(-similarities, axis=0)[:10].T, strict=True):
        answer = [(each.content_id, each.similarity) for each in library.nearest(query, 10, filters or Filters())]
        assert len(answer) == len(best)
        ids = [content_id for content_id, _ in answer]
        assert answer == brute_force(query, embeddings[[number_of[content_id] for content_id in ids]], ids, 10)
        found += len({number_of[content_id] for content_id in ids} & {numbers[place] for place in best})
    return found / (10 * len(queries))


def test_the_size_chooses_the_index(made: Path, queries: NDArray[np.float32]) -> None:
    with Library.open(made, EXACT_UP_TO) as library:
        library.nearest(queries[0], 1)
        assert isinstance(index_of(library), CompressedIndex)
        status = library.status()
        assert status.index_kind.startswith("compressed")
        assert status.index_ram_bytes <= 2500
        assert status.index_recall is not None
        assert AIM <= status.index_recall <= 1
    with Library.open(made, EXACT_UP_TO) as library:
        assert library.status().index_recall == status.index_recall  # from the file alone
    shutil.copytree(made, made.parent / "small")
    with Library.open(made.parent / "small") as library:
        with library.writer() as writer:
            writer.refresh_vectors()
        assert isinstance(index_of(library), VectorIndex)
        assert library.status().index_kind.startswith("exact")
        assert library.status().index_recall == 1
        assert library.verify().findings == ()


def test_status_tells_of_the_index_that_is_there(made: Path, queries: NDArray[np.float32]) -> None:
    with Library.open(made, COUNT + 1) as library:  # too few for a new one, and not so few that it is given up
        before = library.status()
        library.nearest(queries[0], 1)
        assert isinstance(index_of(library), CompressedIndex)
        after = library.status()
    assert before.index_kind.startswith("compressed")
    assert (before.index_kind, before.index_recall) == (after.index_kind, after.index_recall)


def test_finds_nearly_what_brute_force_finds(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    assert recall(large, queries, embeddings, list(range(COUNT))) >= AIM
    index = index_of(large)
    assert isinstance(index, CompressedIndex)
    assert index.widths.breadth < COUNT  # else it would have been no feat
    compared = [len(set(index.near(query, 10).content_ids.tolist())) for query in queries]
    assert np.mean(compared) < COUNT / 4


def test_exact_where_all_are_rescored(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    found = large.nearest(queries[0], COUNT + 5)
    with large.writer() as writer:
        known = writer.find_contents([str(number) for number in range(COUNT)])
        ids = [known[str(number)].content_id for number in range(COUNT)]
    expected = brute_force(queries[0], embeddings[:COUNT], ids, COUNT)
    assert [(each.content_id, each.similarity) for each in found] == expected


@pytest.mark.parametrize("folders", [["3"], ["3", "4", "5", "6", "7"]])
def test_filters_do_not_lower_recall(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16], folders: list[str]
) -> None:
    # One folder is less than the breadth of a search; to have more than that pass, five become one.
    with large.writer() as writer:
        (folder,) = writer.folders()
        numbers = [number for number in range(COUNT) if str(number % 10) in folders]
        writer.commit([IndexedFile(folder, f"together/{n}.jpg", 1, 1, str(n)) for n in numbers], [])
    together = Filters(folder=PHOTOS / "together")
    assert large.considered(together) == len(numbers)
    assert recall(large, queries[:10], embeddings, numbers, together) >= AIM


def test_changes_are_seen_by_the_next_search_and_outlive_it(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    large.nearest(queries[0], 1)
    index = index_of(large)
    add(large, range(COUNT, COUNT + 200), embeddings)
    with large.writer() as writer:
        (folder,) = writer.folders()
        files = writer.known_files(folder)
        writer.mark_missing([files[f"{number % 10}/{number}.jpg"].photo_id for number in range(0, COUNT, 4)])
        # The picture of another number in the place of the file: an edit.
        writer.commit([IndexedFile(folder, "1/1.jpg", 2, 2, "2")], [])
    left = [number for number in range(2, COUNT + 200) if number % 4 or number >= COUNT]
    assert recall(large, queries, embeddings, left) >= AIM
    assert index_of(large) is index  # by the difference
    assert large.considered() == len(left)
    with large.writer() as writer:
        writer.refresh_vectors()
    with Library.open(large.directory, EXACT_UP_TO) as reopened:
        assert reopened.verify().findings == ()
        assert recall(reopened, queries, embeddings, left) >= AIM


def test_recall_that_drops_is_repaired(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    large.nearest(queries[0], 1)
    index = index_of(large)
    assert isinstance(index, CompressedIndex)
    index.means.subspace.projection[:] = index.means.subspace.projection[::-1].copy()  # means that say nothing now
    assert recall(large, queries, embeddings, list(range(COUNT))) < AIM
    add(large, range(COUNT, COUNT + 200), embeddings)
    # Repaired by the index's own queries, from far below any width that it would choose: these 30 are another sample.
    assert recall(large, queries, embeddings, list(range(COUNT + 200))) > 0.97
    assert index.widths.recall >= AIM


def test_what_is_measured_is_recall(large: Library, embeddings: NDArray[np.float16]) -> None:
    # The best pictures of each probe, kept by arithmetic through additions and deletions, are those of brute force.
    add(large, range(COUNT, COUNT + 200), embeddings)
    with large.writer() as writer:
        (folder,) = writer.folders()
        files = writer.known_files(folder)
        writer.mark_missing([files[f"{number % 10}/{number}.jpg"].photo_id for number in range(0, COUNT, 10)])
        numbers = [number for number in range(COUNT + 200) if number % 10 or number >= COUNT]
        known = writer.find_contents([str(number) for number in numbers])
        ids = [known[str(number)].content_id for number in numbers]
    large.nearest(embeddings[0, 0].astype(np.float32), 1)
    index = index_of(large)
    assert isinstance(index, CompressedIndex)
    asked = index.probes.best(len(index))
    assert len(asked) > 50
    for query, expected, tokens in asked[:10]:
        right = brute_force(query, embeddings[numbers], ids, 10)
        assert [content_id for content_id, _ in right] == expected.tolist()
        places = [numbers[ids.index(content_id)] for content_id in expected.tolist()]
        assert (embeddings[places].astype(np.float64) @ query).argmax(axis=1).tolist() == tokens.tolist()
    assert np.isin(asked[0][0], np.float32(texts(np.random.default_rng(3), 100))).all()
    # What is measured is what a search that has every vector would find.
    found = [np.isin(expected, [each.content_id for each in large.nearest(query, 10)]) for query, expected, _ in asked]
    assert index.widths.recall == pytest.approx(np.mean(found), abs=0.005)


def test_without_typical_queries_an_index_asks_its_own_and_is_made_again_with_them(
    tmp_path: Path, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    with Library.create(tmp_path / "library") as library:
        add(library, range(COUNT), embeddings)
    with Library.open(tmp_path / "library", EXACT_UP_TO) as library:
        with library.writer() as writer:
            writer.refresh_vectors()
            assert writer.wants_queries(0)
        assert recall(library, queries, embeddings, list(range(COUNT))) >= AIM
        before = index_of(library)
        assert isinstance(before, CompressedIndex)
        assert not before.widths.typical
        with library.writer() as writer:
            writer.keep_queries(texts(np.random.default_rng(3), 100))
            assert not writer.wants_queries(10**9)
            writer.refresh_vectors()
        after = index_of(library)
        assert isinstance(after, CompressedIndex)
        assert after.widths.typical
        assert recall(library, queries, embeddings, list(range(COUNT))) >= AIM
        assert len(list(library.directory.glob("*.codes"))) == 1


def test_a_small_library_wants_no_queries(tmp_path: Path, embeddings: NDArray[np.float16]) -> None:
    with Library.create(tmp_path / "library") as library:
        add(library, range(60), embeddings)
    with Library.open(tmp_path / "library", EXACT_UP_TO) as library, library.writer() as writer:
        assert not writer.wants_queries(EXACT_UP_TO - 60)
        assert writer.wants_queries(EXACT_UP_TO - 59)


def test_refuses_queries_of_another_shape_or_not_finite(large: Library) -> None:
    with large.writer() as writer:
        for wrong in (np.ones((3, 200), np.float32), np.full((3, EMBEDDING_SIZE), np.nan, np.float32)):
            with pytest.raises(ValueError, match="256 finite values"):
                writer.keep_queries(wrong)


def codes(library: Library) -> Path:
    (path,) = library.directory.glob("*.codes")
    return path


def test_additions_write_only_their_own_codes(large: Library, embeddings: NDArray[np.float16]) -> None:
    path = codes(large)
    before, inode = path.read_bytes(), path.stat().st_ino
    add(large, range(COUNT, COUNT + 50), embeddings)
    with large.writer() as writer:
        writer.refresh_vectors()
    assert codes(large) == path
    assert path.stat().st_ino == inode
    after = path.read_bytes()
    assert after.startswith(before)
    assert len(after) == len(before) + 50 * BLOCK_BYTES


def test_killed_between_the_codes_and_the_index(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    # The codes of the new pictures are there, and the index knows nothing of them.
    before = (large.directory / "vectors.faiss").read_bytes()
    add(large, range(COUNT, COUNT + 200), embeddings)
    with large.writer() as writer:
        writer.refresh_vectors()
    (large.directory / "vectors.faiss").write_bytes(before)
    (large.directory / "vectors-0123abcd.codes").write_bytes(b"left by one that was killed")
    with Library.open(large.directory, EXACT_UP_TO) as again:
        assert recall(again, queries, embeddings, list(range(COUNT + 200))) >= AIM
        with again.writer() as writer:
            writer.refresh_vectors()
        assert again.verify().findings == ()
        assert codes(again) != large.directory / "vectors-0123abcd.codes"


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (Path.unlink, "damaged: its codes are missing, or cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged: its codes are missing, or cut short"),
        (
            lambda path: path.write_bytes(path.read_bytes()[: 900 * BLOCK_BYTES] + bytes((COUNT - 899) * BLOCK_BYTES)),
            "the vectors of 701 pictures are not those of the catalog",
        ),
    ],
    ids=["deleted", "cut short", "zeros"],
)
def test_damaged_codes_are_found_and_repaired(
    large: Library,
    queries: NDArray[np.float32],
    embeddings: NDArray[np.float16],
    damage: Callable[[Path], object],
    finding: str,
) -> None:
    damage(codes(large))
    with Library.open(large.directory, EXACT_UP_TO) as reader:
        for query in queries:  # whatever the codes say, what is told is exact
            answer = reader.nearest(query, 10)
            assert answer == sorted(answer, key=lambda each: -each.similarity)
        assert reader.verify().findings == (f"vectors.faiss: {finding}",)
        assert reader.verify(repair=True).ok
        assert reader.verify().findings == ()
        assert recall(reader, queries, embeddings, list(range(COUNT))) >= AIM


def test_a_library_that_grew_or_shrank_gets_another_index(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    large.nearest(queries[0], 1)
    index = index_of(large)
    assert isinstance(index, CompressedIndex)
    index.widths.pictures = COUNT // 5  # as if made when there were so few
    with large.writer() as writer:
        writer.refresh_vectors()
        assert index_of(large) is not index
        (folder,) = writer.folders()
        files = writer.known_files(folder)
        writer.mark_missing([files[f"{number % 10}/{number}.jpg"].photo_id for number in range(40, COUNT)])
        writer.refresh_vectors()
    assert isinstance(index_of(large), VectorIndex)
    assert not (large.directory / "vectors.exact").exists()
    assert recall(large, queries[:5], embeddings, list(range(40))) == 1


def test_a_library_that_lost_every_photo_finds_nothing(large: Library, queries: NDArray[np.float32]) -> None:
    large.nearest(queries[0], 1)
    with large.writer() as writer:
        (folder,) = writer.folders()
        writer.mark_missing([known.photo_id for known in writer.known_files(folder).values()])
        assert large.nearest(queries[0], 10) == []
        writer.refresh_vectors()
    assert large.nearest(queries[0], 10) == []
    assert large.verify().findings == ()


def test_codes_are_read_into_memory_for_who_searches_again(large: Library, queries: NDArray[np.float32]) -> None:
    first = large.nearest(queries[0], 10)
    index = index_of(large)
    assert isinstance(index, CompressedIndex)
    assert isinstance(index.blocks._state.stored, np.memmap)
    assert index.blocks._loader is None
    large.nearest(queries[0], 10)
    assert index.blocks._loader is not None
    index.blocks._loader.join()
    assert not isinstance(index.blocks._state.stored, np.memmap)
    assert large.nearest(queries[0], 10) == first


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: flip(path, 100),
        lambda path: flip(path, path.stat().st_size // 2),
        lambda path: flip(path, path.stat().st_size - 60),
    ],
    ids=["deleted", "cut short", "in a mean", "in the middle", "in the description"],
)
def test_a_damaged_file_is_told_and_done_without_and_repaired(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16], damage: Callable[[Path], object]
) -> None:
    damage(large.directory / "vectors.faiss")
    assert recall(large, queries[:5], embeddings, list(range(COUNT))) >= AIM
    (finding,) = large.verify().findings
    assert finding.startswith("vectors.faiss: ")
    assert large.verify(repair=True).ok
    assert large.verify().findings == ()
    with Library.open(large.directory, EXACT_UP_TO) as reopened:
        assert recall(reopened, queries[:5], embeddings, list(range(COUNT))) >= AIM


def slots(library: Library) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float16]]:
    """Content ids of the index, which of them vectors.exact has, and what it has of them."""
    index = index_of(library)
    assert isinstance(index, CompressedIndex)
    return index.content_ids, *library._vectors.exact.read(index.content_ids, index.checksums)


def test_the_exact_vectors_are_kept_to_be_read_at_once(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    large.nearest(queries[0], 1)
    add(large, range(COUNT, COUNT + 200), embeddings)
    large.nearest(queries[0], 1)
    _, sound, _ = slots(large)
    assert sound.sum() == COUNT  # searching writes nothing
    with large.writer() as writer:
        writer.refresh_vectors()
        known = writer.find_contents([str(number) for number in range(COUNT + 200)])
    number_of = {each.content_id: int(digest) for digest, each in known.items()}
    ids, sound, found = slots(large)
    assert sound.all()
    np.testing.assert_array_equal(found, embeddings[[number_of[content_id] for content_id in ids.tolist()]])
    assert large.status().bytes["vectors"] > found.nbytes


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (Path.unlink, None),
        (lambda path: path.write_bytes(b""), None),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "the vectors of 1 pictures are damaged"),
        (lambda path: flip(path, path.stat().st_size // 2), "the vectors of 1 pictures are damaged"),
    ],
    ids=["deleted", "empty", "cut short", "flipped"],
)
def test_nothing_depends_on_the_file_of_exact_vectors(
    large: Library, queries: NDArray[np.float32], damage: Callable[[Path], object], finding: str | None
) -> None:
    before = [large.nearest(query, 10) for query in queries]
    damage(large.directory / "vectors.exact")
    assert [large.nearest(query, 10) for query in queries] == before
    assert large.verify().findings == (() if finding is None else (f"vectors.exact: {finding}",))
    assert large.verify(repair=True).ok
    assert large.verify().findings == ()
    with large.writer() as writer:
        writer.refresh_vectors()
    large.nearest(queries[0], 1)
    _, sound, _ = slots(large)
    assert sound.all() or finding is None
    assert (large.directory / "vectors.exact").exists()


def test_a_deleted_file_of_exact_vectors_comes_back(large: Library, queries: NDArray[np.float32]) -> None:
    (large.directory / "vectors.exact").unlink()
    with large.writer() as writer:
        writer.refresh_vectors()
    large.nearest(queries[0], 1)
    _, sound, _ = slots(large)
    assert sound.all()


def test_a_file_of_another_version_is_made_again_without_a_word(
    large: Library, queries: NDArray[np.float32], embeddings: NDArray[np.float16]
) -> None:
    path = large.directory / "vectors.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"2")
    with Library.open(large.directory, EXACT_UP_TO) as library:
        assert recall(library, queries[:5], embeddings, list(range(COUNT))) >= AIM
        assert library.take_notes() == ()
        with library.writer() as writer:
            writer.refresh_vectors()
        assert library.verify().findings == ()
    assert path.read_bytes().endswith(b"3")


def test_a_file_of_a_restored_catalog_is_not_trusted_for_its_revision(
    large: Library, embeddings: NDArray[np.float16]
) -> None:
    backup = large.directory.parent / "backup"
    shutil.copytree(large.directory, backup)
    add(large, range(COUNT, COUNT + 1), embeddings)
    with large.writer() as writer:
        writer.refresh_vectors()
        _, revision = writer.version()
    with Library.open(backup, EXACT_UP_TO) as restored:
        add(restored, range(COUNT + 1, COUNT + 2), embeddings)
        shutil.copy(large.directory / "vectors.faiss", backup / "vectors.faiss")
    # As by a PhotoSeek that counted transactions: as many, and another picture.
    with closing(sqlite3.connect(backup / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE catalog_state SET revision = ?", (revision,))
    with Library.open(backup, EXACT_UP_TO) as restored:
        query = unit(embeddings[COUNT + 1, 5].astype(np.float32))
        assert restored.nearest(query, 1)[0].similarity == pytest.approx(1, abs=1e-3)
        assert restored.considered() == COUNT + 1


def test_a_change_that_concerns_no_vector_is_compared_with_the_index_once(large: Library) -> None:
    with large.writer() as writer:
        writer.commit([IndexedFile(writer.add_folder(PHOTOS), "broken.jpg", 0, 0, None, "not a picture")], [])
        writer.refresh_vectors()
        library, revision = writer.version()
    saved = saved_at(large.directory / "vectors.faiss", Origin(library, MODEL))
    assert saved == (revision, COUNT, True)


def test_verify_compares_the_codes_themselves(large: Library, embeddings: NDArray[np.float16]) -> None:
    large.nearest(embeddings[0, 0].astype(np.float32), 1)
    index, held = index_of(large), large._vectors._held
    assert isinstance(index, CompressedIndex)
    ids, checksums = index.content_ids[5:6].copy(), index.checksums[5:6].copy()
    index.remove(ids)
    index.add(ids, checksums, embeddings[COUNT : COUNT + 1])
    assert held is not None
    held.saved_as = None
    with large.writer() as writer:
        writer.refresh_vectors()
    with Library.open(large.directory, EXACT_UP_TO) as reader:
        assert reader.verify().findings == ("vectors.faiss: the vectors of 1 pictures are not those of the catalog",)
        assert reader.verify(repair=True).ok
        assert reader.verify().findings == ()


def test_searches_from_several_threads_while_the_library_changes(
    large: Library, embeddings: NDArray[np.float16]
) -> None:
    stop, wrong = threading.Event(), list[object]()
    query = unit(embeddings[7, 5].astype(np.float32))

    def search() -> None:
        while not stop.is_set():
            try:
                best = large.nearest(query, 10)
                if len(best) != 10 or best[0].similarity < 0.999:
                    wrong.append(best)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(COUNT, COUNT + 5):
        add(large, range(number, number + 1), embeddings)
        with large.writer() as writer:
            writer.refresh_vectors()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert large.verify().findings == ()
