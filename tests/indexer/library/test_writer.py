"""What happens to files happens to their rows."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import PhotoNotFound
from indexer.library import IndexedFile, Library, NewContent, Unembedded, Writer
from tests.indexer.library.pictures import (
    FACTS,
    MODEL,
    OTHER_MODEL,
    add,
    embeddings_of,
    file,
    picture,
    query_for,
    with_facts,
)


@pytest.fixture
def folder_id(library: Library, photos: Path) -> int:
    """A folder of a library with a model and the pictures a, b and c."""
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder_id = writer.add_folder(photos)
        add(writer, folder_id, "abc")
    return folder_id


def found(library: Library, name: str) -> list[str]:
    """File names of the picture that a search for this one finds, if it is this one."""
    (neighbour,) = library.nearest(query_for(name), 1)
    if neighbour.similarity < 0.9:
        return []
    return [photo.path.name for photo in library.photos_of([neighbour.content_id])[neighbour.content_id]]


def known(writer: Writer, folder_id: int) -> dict[str, tuple[int, str | None, bool]]:
    return {path: (row.photo_id, row.digest, row.missing) for path, row in writer.known_files(folder_id).items()}


def test_what_was_committed_is_known_and_found(library: Library, folder_id: int, photos: Path) -> None:
    with library.writer() as writer:
        row = writer.known_files(folder_id)["a.jpg"]
        content = writer.find_contents(["a", "unknown"])
    assert (row.size, row.mtime_ns, row.digest, row.missing, row.failed, row.embedded) == (
        100,
        5,
        "a",
        False,
        False,
        True,
    )
    assert list(content) == ["a"]
    assert (content["a"].content_id, content["a"].failure, content["a"].embedded) == (row.content_id, None, True)
    photo = library.photo(row.photo_id)
    assert (photo.path, photo.folder, photo.size, photo.facts) == (photos / "a.jpg", photos, 100, FACTS)
    assert found(library, "a") == ["a.jpg"]


def test_facts_come_back_as_they_were_given(library: Library, folder_id: int) -> None:
    facts = with_facts(
        taken_at=datetime.datetime(2021, 2, 3, 4, 5, 6, 789), camera="Zeiß Ikon \\ x", latitude=-12.25, longitude=179.5
    )
    with library.writer() as writer:
        writer.commit([file(folder_id, "facts.jpg", "facts")], [picture("facts", facts)])
        photo_id = writer.known_files(folder_id)["facts.jpg"].photo_id
    assert library.photo(photo_id).facts == facts


def test_a_vanished_file_is_hidden_and_comes_back_for_free(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        row = writer.known_files(folder_id)["a.jpg"]
        writer.mark_missing([row.photo_id])
        assert found(library, "a") == []
        with pytest.raises(PhotoNotFound, match="is gone"):
            library.photo(row.photo_id)
        assert (library.status().photos, library.status().missing) == (2, 1)
        assert writer.known_files(folder_id)["a.jpg"].missing
        writer.commit([file(folder_id, "a.jpg", "a", photo_id=row.photo_id)], [])
    assert found(library, "a") == ["a.jpg"]
    assert library.photo(row.photo_id).content_id == row.content_id
    assert library.status().missing == 0


def test_every_missing_photo_of_a_picture_is_told_of_in_order(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.commit([file(folder_id, f"again{number}.jpg", "a") for number in range(3)], [])
        ids = [row.photo_id for path, row in sorted(writer.known_files(folder_id).items()) if path.startswith("again")]
        writer.mark_missing([ids[2], ids[0]])
        contents = writer.find_contents(["b", "a"])
        writer.use_model(OTHER_MODEL)
        assert not writer.find_contents(["a"])["a"].embedded
    assert contents["a"].missing_photos == (ids[0], ids[2])
    assert contents["b"].missing_photos == ()
    assert contents["a"].embedded


def test_a_moved_file_keeps_its_id(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        row = writer.known_files(folder_id)["a.jpg"]
        writer.mark_missing([row.photo_id])
        assert writer.find_contents(["a"])["a"].missing_photos == (row.photo_id,)
        writer.commit([file(folder_id, "moved/a2.jpg", "a", photo_id=row.photo_id)], [])
        assert known(writer, folder_id)["moved/a2.jpg"] == (row.photo_id, "a", False)
        assert "a.jpg" not in known(writer, folder_id)
        assert writer.find_contents(["a"])["a"].missing_photos == ()
    assert found(library, "a") == ["a2.jpg"]


def test_a_duplicate_is_another_photo_of_the_same_picture(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.commit([file(folder_id, "copy.jpg", "a")], [])
        rows = writer.known_files(folder_id)
        assert rows["copy.jpg"].content_id == rows["a.jpg"].content_id
        assert found(library, "a") == ["a.jpg", "copy.jpg"]
        writer.mark_missing([rows["a.jpg"].photo_id])
    assert found(library, "a") == ["copy.jpg"]


def test_an_edited_file_is_found_as_what_it_now_shows(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        row = writer.known_files(folder_id)["a.jpg"]
        writer.commit([file(folder_id, "a.jpg", "edited", photo_id=row.photo_id)], [picture("edited")])
        assert known(writer, folder_id)["a.jpg"] == (row.photo_id, "edited", False)
    assert found(library, "a") == []
    assert found(library, "edited") == ["a.jpg"]


def test_a_touched_file_stays_what_it_is(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        before = writer.known_files(folder_id)["a.jpg"]
        writer.commit([file(folder_id, "a.jpg", "a", photo_id=before.photo_id, mtime_ns=77)], [])
        after = writer.known_files(folder_id)["a.jpg"]
    assert (after.photo_id, after.content_id, after.mtime_ns) == (before.photo_id, before.content_id, 77)


def test_the_same_path_again_is_the_same_photo(library: Library, folder_id: int) -> None:
    # A run that was killed after its commit says the same again.
    with library.writer() as writer:
        before = known(writer, folder_id)
        add(writer, folder_id, "abc")
        assert known(writer, folder_id) == before
    assert library.status().photos == 3


def test_files_may_exchange_their_names(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        rows = writer.known_files(folder_id)
        ids = {name: rows[f"{name}.jpg"].photo_id for name in "abc"}
        writer.commit(
            [file(folder_id, f"{to}.jpg", name, photo_id=ids[name]) for name, to in zip("abc", "bca", strict=True)], []
        )
        assert known(writer, folder_id) == {
            "b.jpg": (ids["a"], "a", False),
            "c.jpg": (ids["b"], "b", False),
            "a.jpg": (ids["c"], "c", False),
        }


def test_a_file_moved_over_another_takes_its_place(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        rows = writer.known_files(folder_id)
        moved = rows["a.jpg"].photo_id
        writer.commit([file(folder_id, "b.jpg", "a", photo_id=moved)], [])
        assert known(writer, folder_id) == {"b.jpg": (moved, "a", False), "c.jpg": (rows["c.jpg"].photo_id, "c", False)}
    assert found(library, "b") == []


def test_two_new_files_that_claim_one_missing_photo_are_two_photos(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        gone = writer.known_files(folder_id)["a.jpg"].photo_id
        writer.mark_missing([gone])
        writer.commit([file(folder_id, f"{place}.jpg", "a", photo_id=gone) for place in ("x", "y")], [])
        rows = writer.known_files(folder_id)
        assert {"x.jpg", "y.jpg"} <= set(rows)
        assert rows["x.jpg"].photo_id != rows["y.jpg"].photo_id
    assert found(library, "a") == ["x.jpg", "y.jpg"]


def test_a_picture_that_no_file_has_any_more_is_forgotten_by_the_next_writer(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        row = writer.known_files(folder_id)["c.jpg"]
        assert row.content_id is not None
        library.add_thumbnail(row.content_id, b"RIFF")
        writer.commit([file(folder_id, "c.jpg", "b", photo_id=row.photo_id)], [])
        # Not before: this run may be about to record another file of it.
        assert "c" in writer.find_contents(["c"])
    with library.writer() as writer:
        assert writer.find_contents(["c"]) == {}
        # Its id is not given again: readers may still have its vectors.
        add(writer, folder_id, "d")
        assert writer.find_contents(["d"])["d"].content_id > row.content_id
        writer.refresh_vectors()
    assert library.thumbnail(row.content_id) is None
    assert library.verify().findings == ()


def test_failures_are_listed_with_their_reasons(library: Library, folder_id: int, photos: Path) -> None:
    with library.writer() as writer:
        rows = writer.known_files(folder_id)
        writer.commit(
            [
                file(folder_id, "broken.jpg", "broken"),
                IndexedFile(folder_id, "secret.jpg", 1, 1, None, "permission denied: '\udcff'"),
                IndexedFile(folder_id, "b.jpg", 1, 1, None, "permission denied", photo_id=rows["b.jpg"].photo_id),
            ],
            [NewContent("broken", None, "truncated file")],
        )
        again = writer.known_files(folder_id)
        assert (again["broken.jpg"].failed, again["secret.jpg"].failed, again["b.jpg"].failed) == (True, True, True)
        assert (again["secret.jpg"].content_id, again["secret.jpg"].digest) == (None, None)
        assert writer.find_contents(["broken"])["broken"].failure == "truncated file"
    assert [(failed.path, failed.reason) for failed in library.failures()] == [
        (photos / "b.jpg", "permission denied"),
        (photos / "broken.jpg", "truncated file"),
        (photos / "secret.jpg", "permission denied: '\udcff'"),
    ]
    age = datetime.datetime.now(datetime.UTC) - library.failures()[0].since
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    assert (library.status().photos, library.status().failed) == (2, 3)
    assert found(library, "b") == []
    with pytest.raises(PhotoNotFound, match="truncated file"):
        library.photo(again["broken.jpg"].photo_id)


def test_a_file_that_was_unreadable_for_a_while_is_the_same_picture_after(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        row = writer.known_files(folder_id)["b.jpg"]
        writer.commit([IndexedFile(folder_id, "b.jpg", 1, 1, None, "permission denied", photo_id=row.photo_id)], [])
    with library.writer() as writer:
        assert writer.find_contents(["b"])["b"].embedded
        writer.commit([file(folder_id, "b.jpg", "b", photo_id=row.photo_id)], [])
    assert found(library, "b") == ["b.jpg"]
    assert library.failures() == []


def test_a_failed_file_that_is_mended_is_found(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.commit([file(folder_id, "d.jpg", "d")], [NewContent("d", None, "no decoder")])
        first = library.failures()[0].since
        writer.commit([file(folder_id, "d.jpg", "d", mtime_ns=6)], [])
        assert library.failures()[0].since == first
        writer.commit([], [picture("d")])
    assert library.failures() == []
    assert found(library, "d") == ["d.jpg"]


def test_a_vanished_file_that_never_could_be_read_is_forgotten(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.commit([IndexedFile(folder_id, "secret.jpg", 1, 1, None, "permission denied")], [])
        writer.mark_missing([writer.known_files(folder_id)["secret.jpg"].photo_id])
        assert "secret.jpg" not in writer.known_files(folder_id)
    assert library.failures() == []
    assert library.status().missing == 0


@pytest.mark.parametrize(
    "path",
    ["\udcff\udc80.jpg", "new\nline.jpg", "back\\slash.jpg", "\\u0041.jpg", "a/ü/日本.jpg", "%_'\".jpg", "tab\t .jpg"],
)
def test_any_file_name_comes_back_as_it_is(library: Library, folder_id: int, photos: Path, path: str) -> None:
    with library.writer() as writer:
        writer.commit([file(folder_id, path, "name")], [picture("name")])
        row = writer.known_files(folder_id)[path]
    assert library.photo(row.photo_id).path == photos / path


def test_case_twins_are_two_photos(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.commit([file(folder_id, name, "a") for name in ("Twin.jpg", "twin.jpg")], [])
        assert {"Twin.jpg", "twin.jpg"} <= set(writer.known_files(folder_id))


def test_a_time_that_no_clock_shows_is_kept(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.commit([file(folder_id, "odd.jpg", "odd", mtime_ns=10**30)], [picture("odd")])
        photo_id = writer.known_files(folder_id)["odd.jpg"].photo_id
        writer.commit([file(folder_id, "old.jpg", "odd", mtime_ns=-(10**30))], [])
    assert library.photo(photo_id).path.name == "odd.jpg"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((31, 256), np.float16),
        np.zeros((32, 256), np.float32),
        np.full((32, 256), np.inf, np.float16),
    ],
)
def test_refuses_embeddings_that_are_none(library: Library, folder_id: int, wrong: np.ndarray) -> None:
    with library.writer() as writer, pytest.raises(ValueError, match="embeddings of wrong"):
        writer.commit([file(folder_id, "w.jpg", "wrong")], [NewContent("wrong", FACTS, embeddings=wrong)])
    assert library.status().photos == 3


def test_a_commit_is_all_or_nothing(library: Library, folder_id: int) -> None:
    with library.writer() as writer, pytest.raises(ValueError, match="no content of digest e"):
        writer.commit([file(folder_id, "d.jpg", "d"), file(folder_id, "e.jpg", "e")], [picture("d")])
    assert library.status().photos == 3
    with library.writer() as writer:
        assert writer.find_contents(["d"]) == {}


def test_refuses_embeddings_of_no_model(library: Library, photos: Path) -> None:
    with library.writer() as writer:
        folder_id = writer.add_folder(photos)
        with pytest.raises(ValueError, match="use_model"):
            add(writer, folder_id, "a")


def test_a_new_model_is_built_beside_the_active_one(library: Library, folder_id: int, photos: Path) -> None:
    other = {name: embeddings_of(f"{name} by the other model") for name in "abc"}
    with library.writer() as writer:
        writer.use_model(OTHER_MODEL)
        assert not writer.known_files(folder_id)["a.jpg"].embedded
        assert not writer.find_contents(["a"])["a"].embedded
        first = writer.unembedded(2)
        assert [(each.digest, each.path) for each in first] == [("a", photos / "a.jpg"), ("b", photos / "b.jpg")]
        assert [each.digest for each in writer.unembedded(9, after=first[-1].content_id)] == ["c"]
        writer.commit([], [NewContent(name, None, embeddings=other[name]) for name in "ab"])
        assert [each.digest for each in writer.unembedded(9)] == ["c"]
        assert found(library, "a") == ["a.jpg"]
        assert library.active_model() == MODEL
        writer.commit([], [NewContent("c", None, embeddings=other["c"])])
        writer.refresh_vectors()
        writer.activate(OTHER_MODEL)
        assert writer.unembedded(9) == []
        assert found(library, "a") == []
        assert found(library, "a by the other model") == ["a.jpg"]
        writer.refresh_vectors()
    assert library.active_model() == OTHER_MODEL
    assert [(each.identity, each.active, each.embedded) for each in library.models()] == [
        (MODEL, False, 3),
        (OTHER_MODEL, True, 3),
    ]
    content_id = library.nearest(query_for("a by the other model"), 1)[0].content_id
    np.testing.assert_array_equal(library.embeddings([content_id])[0], other["a"])
    with Library.open(library.directory) as reopened:
        assert found(reopened, "c by the other model") == ["c.jpg"]


def test_unembedded_asks_only_for_what_is_there_to_read(library: Library, folder_id: int) -> None:
    with library.writer() as writer:
        writer.use_model(OTHER_MODEL)
        rows = writer.known_files(folder_id)
        writer.mark_missing([rows["a.jpg"].photo_id])
        writer.commit(
            [file(folder_id, "copy.jpg", "b"), file(folder_id, "x.jpg", "x")], [NewContent("x", None, "broken")]
        )
        writer.mark_missing([rows["b.jpg"].photo_id])
        left: list[Unembedded] = writer.unembedded(9)
        assert [(each.digest, each.path.name) for each in left] == [("b", "copy.jpg"), ("c", "c.jpg")]


@pytest.mark.usefixtures("folder_id")
def test_embeddings_are_given_in_the_order_asked_for(library: Library) -> None:
    with library.writer() as writer:
        ids = {digest: known.content_id for digest, known in writer.find_contents(["a", "b", "c"]).items()}
    given = library.embeddings([ids["c"], ids["a"], ids["c"]])
    np.testing.assert_array_equal(given, np.stack([embeddings_of(name) for name in "cac"]))
    assert library.embeddings([]).shape == (0, 32, 256)
    with pytest.raises(PhotoNotFound, match="Picture 999"):
        library.embeddings([ids["a"], 999])


def test_indexed_files_are_those_known_as_present_and_not_failed(library: Library, tmp_path: Path) -> None:
    """Against the slow way, with every kind of row, names that are stored escaped, and a folder in a folder."""
    (tmp_path / "photos/in").mkdir(parents=True)
    names = ["a.jpg", "in/back\\slash.jpg", "in/\udcff.jpg", "in/broken.jpg", "in/unread.jpg", "in/gone.jpg"]
    with library.writer() as writer:
        outer, inner = writer.add_folder(tmp_path / "photos"), writer.add_folder(tmp_path / "photos/in")
        contents = [NewContent("good", None, None), NewContent("bad", None, "cannot be decoded")]
        digests = ["good", "good", "good", "bad", None, "good"]
        files = [
            IndexedFile(outer, name, 10 + row, row, digest, None if digest else "cannot be read", None)
            for row, (name, digest) in enumerate(zip(names, digests, strict=True))
        ]
        writer.commit(files, contents)
        writer.mark_missing([writer.known_files(outer)["in/gone.jpg"].photo_id])
        for folder_id, indexed in (outer, names[:3]), (inner, ["back\\slash.jpg", "\udcff.jpg"]):
            known = writer.known_files(folder_id)
            slow = {(path, row.size, row.mtime_ns) for path, row in known.items() if not (row.missing or row.failed)}
            assert writer.indexed_files(folder_id) == slow
            assert sorted(path for path, _, _ in slow) == sorted(indexed)
            others = {path: row for path, row in known.items() if path not in indexed}
            assert writer.known_files(folder_id, []) == others
            assert writer.known_files(folder_id, indexed[:1]) == others | {indexed[0]: known[indexed[0]]}
