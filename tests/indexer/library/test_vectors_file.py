"""vectors.faiss is a cache: whatever happens to it, searches answer the same."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.library import Library
from tests.indexer.library.pictures import MODEL, OTHER_MODEL, add, embeddings_of, file, query_for

NAMES = [f"picture {number}" for number in range(40)]


@pytest.fixture
def filled(library: Library, photos: Path) -> Library:
    """A library of 40 pictures with its vectors saved."""
    with library.writer() as writer:
        writer.use_model(MODEL)
        add(writer, writer.add_folder(photos), NAMES)
        writer.refresh_vectors()
    return library


def vectors(library: Library) -> Path:
    return library.directory / "vectors.faiss"


def answers(library: Library) -> list[list[tuple[int, float]]]:
    return [
        [(each.content_id, each.similarity) for each in library.nearest(query_for(name), 40)] for name in NAMES[::9]
    ]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def other_library(path: Path) -> None:
    """Put the vectors of another library, of the same content ids, in the place of these."""
    with Library.create(path.parent.parent / "other") as other:
        with other.writer() as writer:
            writer.use_model(MODEL)
            add(writer, writer.add_folder(path.parent.parent), [f"other {number}" for number in range(40)])
            writer.refresh_vectors()
        shutil.copy(vectors(other), path)


def make_a_folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "cut to a few bytes": lambda path: path.write_bytes(path.read_bytes()[:7]),
    "a bit of the header flipped": lambda path: flip(path, 10),
    "a bit of a vector flipped": lambda path: flip(path, 100_000),
    "a bit of the description flipped": lambda path: flip(path, path.stat().st_size - 60),
    "a bit of the checksum flipped": lambda path: flip(path, path.stat().st_size - 10),
    "a bit of the length flipped": lambda path: flip(path, path.stat().st_size - 14),
    "the middle gone": lambda path: path.write_bytes(path.read_bytes()[:5000] + path.read_bytes()[9000:]),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(100_000)),
    "a plain FAISS index": lambda path: faiss.write_index(faiss.IndexFlatIP(256), str(path)),
    "of another library": other_library,
    "a folder": make_a_folder,
}
NO_DAMAGE = ("deleted", "of another library")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_right_is_told_and_done_without_and_repaired(filled: Library, damage: str) -> None:
    expected = answers(filled)
    DAMAGES[damage](vectors(filled))
    with Library.open(filled.directory) as reader:
        assert answers(reader) == expected
        notes = reader.take_notes()
        assert len(notes) == (damage not in NO_DAMAGE)
        assert all(note.startswith(("vectors.faiss was damaged: ", "vectors.faiss was unreadable: ")) for note in notes)
        (finding,) = reader.verify().findings
        assert finding.startswith("vectors.faiss: ")
        report = reader.verify(repair=True)
        assert report.repaired == report.findings == (finding,)
        assert report.ok
        assert reader.verify().findings == ()
        assert answers(reader) == expected
    with Library.open(filled.directory) as reader:
        assert answers(reader) == expected
        assert reader.take_notes() == ()


def test_the_next_refresh_replaces_a_damaged_file(filled: Library) -> None:
    flip(vectors(filled), 100_000)
    with Library.open(filled.directory) as again:
        with again.writer() as writer:
            writer.refresh_vectors()
        assert again.verify().findings == ()


def test_faiss_itself_reads_the_file(filled: Library) -> None:
    index = faiss.read_index(str(vectors(filled)))
    _, ids = index.search(query_for(NAMES[3])[None], 1)
    assert ids[0, 0] == filled.nearest(query_for(NAMES[3]), 1)[0].content_id * 32 + 7
    assert index.ntotal == 40 * 32


def test_a_file_behind_the_catalog_is_completed_in_memory(filled: Library) -> None:
    old = vectors(filled).read_bytes()
    with filled.writer() as writer:
        (folder,) = writer.folders()
        writer.mark_missing([writer.known_files(folder)[f"{NAMES[0]}.jpg"].photo_id])
        add(writer, folder, ["new"])
        writer.refresh_vectors()
    expected = answers(filled)
    vectors(filled).write_bytes(old)
    with Library.open(filled.directory) as reader:
        assert answers(reader) == expected
        assert reader.nearest(query_for("new"), 1)[0].similarity > 0.9
        assert reader.nearest(query_for(NAMES[0]), 1)[0].similarity < 0.9
        assert reader.verify().findings == ("vectors.faiss: behind the catalog: 1 pictures to add, 1 to remove",)
        assert reader.verify(repair=True).ok
        assert reader.verify().findings == ()


def test_a_file_ahead_of_the_catalog_is_put_back(filled: Library) -> None:
    # The catalog was restored from a backup.
    shutil.copytree(filled.directory, filled.directory.parent / "backup")
    with filled.writer() as writer:
        (folder,) = writer.folders()
        add(writer, folder, ["new"])
        writer.refresh_vectors()
    with Library.open(filled.directory.parent / "backup") as restored:
        shutil.copy(vectors(filled), vectors(restored))
        assert restored.nearest(query_for("new"), 1)[0].similarity < 0.9
        # Another picture takes the id that the lost one had.
        with restored.writer() as writer:
            add(writer, folder, ["newer"])
        assert restored.nearest(query_for("newer"), 1)[0].similarity > 0.9
        assert restored.nearest(query_for("new"), 1)[0].similarity < 0.9


def test_verify_compares_the_values_themselves(filled: Library) -> None:
    # A file of the right origin with a right checksum, and one wrong vector in it.
    from indexer.library._vectors_file import Origin, load_vectors, save_vectors  # noqa: PLC0415

    library_id = filled._engine.raw_connection().cursor().execute("SELECT library FROM catalog_state").fetchone()[0]
    origin = Origin(library_id, MODEL)
    index, _ = load_vectors(vectors(filled), origin)
    ids, checksums = index.content_ids[5:6].copy(), index.checksums[5:6].copy()
    index.remove(ids)
    index.add(ids, checksums, embeddings_of("wrong")[None])
    save_vectors(vectors(filled), index, origin)
    with Library.open(filled.directory) as reader:
        assert reader.verify().findings == ("vectors.faiss: the vectors of 1 pictures are not those of the catalog",)
        assert reader.verify(repair=True).ok
        assert reader.nearest(query_for("wrong"), 1)[0].similarity < 0.9


def test_readers_see_what_another_process_wrote_without_reopening(filled: Library) -> None:
    assert filled.nearest(query_for("new"), 1)[0].similarity < 0.9
    with Library.open(filled.directory) as other, other.writer() as writer:
        (folder,) = writer.folders()
        add(writer, folder, ["new"])
        assert filled.nearest(query_for("new"), 1)[0].similarity > 0.9
        writer.refresh_vectors()
        assert filled.nearest(query_for("new"), 1)[0].similarity > 0.9
        writer.mark_missing([writer.known_files(folder)["new.jpg"].photo_id])
        assert filled.nearest(query_for("new"), 1)[0].similarity < 0.9
        writer.use_model(OTHER_MODEL)
        writer.activate(OTHER_MODEL)
        assert filled.nearest(query_for("new"), 1) == []


def test_nothing_is_written_when_nothing_changed(filled: Library) -> None:
    before = vectors(filled).stat()
    with Library.open(filled.directory) as again, again.writer() as writer:
        (folder,) = writer.folders()
        writer.commit([file(folder, f"{NAMES[0]}.jpg", NAMES[0], mtime_ns=9)], [])
        writer.refresh_vectors()
    after = vectors(filled).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_is_current_is_not_loaded_to_be_saved(filled: Library) -> None:
    before = vectors(filled).stat()
    with Library.open(filled.directory) as again, again.writer() as writer:
        (folder,) = writer.folders()
        writer.use_model(MODEL)
        writer.add_folder(writer.folders()[folder])
        writer.refresh_vectors()
        assert again._vectors._held is None
        writer.mark_missing([writer.known_files(folder)[f"{NAMES[0]}.jpg"].photo_id])
        writer.refresh_vectors()
    assert vectors(filled).stat().st_mtime_ns > before.st_mtime_ns


def test_searches_from_several_threads_while_the_library_changes(filled: Library) -> None:
    stop = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        while not stop.is_set():
            try:
                best = filled.nearest(query_for(NAMES[0]), 10)
                similarities = [each.similarity for each in best]
                if len(best) != 10 or similarities[0] < 0.9 or similarities != sorted(similarities, reverse=True):
                    wrong.append(best)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    with filled.writer() as writer:
        (folder,) = writer.folders()
        for number in range(20):
            add(writer, folder, [f"{number} of many"])
            known = writer.known_files(folder)
            writer.mark_missing([known[f"{NAMES[number + 1]}.jpg"].photo_id])
            writer.refresh_vectors()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert filled.verify().findings == ()
