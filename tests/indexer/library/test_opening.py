"""Opening, creating, migrating and locking."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from indexer.errors import LibraryDamaged, LibraryError, LibraryLocked, LibraryNotFound, LibraryTooNew
from indexer.library import Filters, Library
from indexer.library._migrations import FORMAT_VERSION, MIGRATIONS
from indexer.library._opening import open_catalog
from indexer.library._tables import Base
from tests.disks import no_file_larger_than, remount
from tests.indexer.library.pictures import MODEL, add, query_for
from tests.indexer.library.test_caches import THUMBNAIL, tokens_of

HOLD = """
import sys, time
from pathlib import Path
from indexer.library import Library
with Library.create(Path(sys.argv[1])) as library, library.writer():
    print("held", flush=True)
    sys.stdin.readline()
"""

FORK_AND_HOLD = """
import os, sys, time
from pathlib import Path
from indexer.library import Library
with Library.create(Path(sys.argv[1])) as library, library.writer():
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "library"


def test_creates_what_is_not_there_and_keeps_what_is(directory: Path, photos: Path) -> None:
    with Library.create(directory / "deep") as library, library.writer() as writer:
        writer.use_model(MODEL)
        add(writer, writer.add_folder(photos), "a")
    with Library.create(directory / "deep") as library:
        assert library.status().photos == 1
        assert library.status().format_version == FORMAT_VERSION


def test_a_library_may_be_named_by_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    with Library.create(tmp_path / "lib \udcff?#%20") as library, library.writer() as writer:
        writer.use_model(MODEL)
    with Library.open(tmp_path / "lib \udcff?#%20") as library:
        assert library.active_model() == MODEL


def test_an_empty_library_answers_everything(library: Library) -> None:
    status = library.status()
    assert (status.photos, status.pictures, status.failed, status.missing, status.vectors) == (0, 0, 0, 0, 0)
    assert (status.folders, status.model, library.models(), library.failures()) == ((), None, [], [])
    assert status.bytes["catalog"] > 0
    assert library.verify().findings == ()


def test_where_no_library_is_says_how_to_make_one(directory: Path) -> None:
    with pytest.raises(LibraryNotFound, match="photoseek index"):
        Library.open(directory)
    assert not directory.exists()


def test_where_no_library_can_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="cannot be made"):
        Library.create(tmp_path / "file")


def test_a_newer_format_is_refused_and_left_alone(directory: Path) -> None:
    Library.create(directory).close()
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    before = (directory / "catalog.sqlite").read_bytes()
    for way in (Library.open, Library.create):
        with pytest.raises(LibraryTooNew, match=f"format {FORMAT_VERSION + 1}.*Update PhotoSeek"):
            way(directory)
    assert (directory / "catalog.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.write_bytes(b"not a database, though long enough to be one" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
    ],
    ids=["emptied", "zeros", "text", "cut short", "cut in the header"],
)
def test_a_damaged_catalog_is_refused_and_left_alone(directory: Path, damage: Callable[[Path], None]) -> None:
    Library.create(directory).close()
    catalog = directory / "catalog.sqlite"
    damage(catalog)
    before = catalog.read_bytes()
    for way in (Library.open, Library.create):
        with pytest.raises(LibraryDamaged, match="left as it is"), way(directory) as library:
            library.status()
    assert catalog.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_left_alone(directory: Path) -> None:
    directory.mkdir()
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        connection.execute("CREATE TABLE mine (precious)")
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(LibraryDamaged, match="not a catalog of PhotoSeek"):
        Library.create(directory)


def test_migrations_lead_to_the_tables_that_the_code_has(library: Library) -> None:
    inspector = inspect(library._engine)
    assert sorted(inspector.get_table_names()) == sorted(Base.metadata.tables)
    for name, table in Base.metadata.tables.items():
        columns = {column["name"]: (str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)}
        expected = {
            column.name: (column.type.compile(library._engine.dialect), bool(column.nullable))
            for column in table.columns
        }
        assert columns == expected
        assert {index["name"]: index["column_names"] for index in inspector.get_indexes(name)} == {
            index.name: [column.name for column in index.columns] for index in table.indexes
        }
        assert inspector.get_pk_constraint(name)["constrained_columns"] == [column.name for column in table.primary_key]
        assert {
            key["constrained_columns"][0]: (key["referred_table"], key["options"])
            for key in inspector.get_foreign_keys(name)
        } == {
            key.parent.name: (key.column.table.name, {"ondelete": key.ondelete} if key.ondelete else {})
            for key in table.foreign_keys
        }


def add_a_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE photo ADD COLUMN stars INTEGER"))


def fail_half_way(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE half (done INTEGER)"))
    raise RuntimeError("power cut")


def version_and_backups(directory: Path) -> tuple[int, list[str]]:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version, sorted(path.name for path in directory.glob("catalog.format*"))


def test_an_older_format_is_migrated_after_a_backup(directory: Path, photos: Path) -> None:
    with Library.create(directory) as library, library.writer() as writer:
        writer.use_model(MODEL)
        add(writer, writer.add_folder(photos), "abc")
    later = {**MIGRATIONS, FORMAT_VERSION + 1: add_a_column}
    engine = open_catalog(directory, later)
    assert "stars" in {column["name"] for column in inspect(engine).get_columns("photo")}
    engine.dispose()
    backup = f"catalog.format-{FORMAT_VERSION}.sqlite"
    assert version_and_backups(directory) == (FORMAT_VERSION + 1, [backup])
    # The backup is a whole library's catalog again.
    (directory / "catalog.sqlite").unlink()
    (directory / backup).rename(directory / "catalog.sqlite")
    with Library.open(directory) as library:
        assert library.nearest(query_for("b"), 1)[0].similarity > 0.9
        assert library.verify(repair=True).ok


def test_a_migration_that_fails_leaves_the_format_that_was(directory: Path) -> None:
    Library.create(directory).close()
    with pytest.raises(RuntimeError, match="power cut"):
        open_catalog(directory, {**MIGRATIONS, FORMAT_VERSION + 1: add_a_column, FORMAT_VERSION + 2: fail_half_way})
    assert version_and_backups(directory)[0] == FORMAT_VERSION
    with Library.open(directory) as library:
        tables = inspect(library._engine)
        assert "half" not in tables.get_table_names()
        assert "stars" not in {column["name"] for column in tables.get_columns("photo")}


def test_a_migration_without_room_for_its_backup_changes_nothing(directory: Path) -> None:
    Library.create(directory).close()
    later = {**MIGRATIONS, FORMAT_VERSION + 1: add_a_column}
    with no_file_larger_than(10_000), pytest.raises(LibraryError, match=r"is full|cannot be"):
        open_catalog(directory, later)
    assert version_and_backups(directory) == (FORMAT_VERSION, [])
    open_catalog(directory, later).dispose()
    assert version_and_backups(directory)[0] == FORMAT_VERSION + 1


def test_one_writer_at_a_time(library: Library) -> None:
    with library.writer():
        with pytest.raises(LibraryLocked, match=f"Process {os.getpid()} is writing"), library.writer():
            pass
        with pytest.raises(LibraryLocked), Library.open(library.directory) as other, other.writer():
            pass
        with pytest.raises(LibraryLocked):
            library.verify(repair=True)
        assert library.verify().findings == ()
    with library.writer() as writer:
        writer.use_model(MODEL)


def test_another_thread_may_use_the_writer_and_end_it(library: Library) -> None:
    holding = library.writer()
    writer = holding.__enter__()

    def use_and_end() -> None:
        writer.use_model(MODEL)
        holding.__exit__(None, None, None)

    thread = threading.Thread(target=use_and_end)
    thread.start()
    thread.join()
    with library.writer():
        assert library.active_model() == MODEL


def test_the_lock_names_its_holder_and_is_gone_when_the_holder_is_killed(directory: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with Library.open(directory) as library:
            with pytest.raises(LibraryLocked, match=f"Process {holder.pid} is writing"), library.writer():
                pass
            assert library.status().photos == 0
            holder.kill()
            holder.wait()
            with library.writer():
                pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_worker_that_outlives_its_parent_does_not_hold_the_lock(directory: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORK_AND_HOLD, directory], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            holder.kill()
            holder.wait()
            with Library.open(directory) as library, library.writer():
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_library_that_is_deleted_while_open_is_not_written_to(library: Library, photos: Path) -> None:
    with library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        for path in library.directory.glob("catalog.*"):
            path.unlink()
        with pytest.raises(LibraryNotFound):
            add(writer, folder, "a")
    with pytest.raises(LibraryNotFound), library.writer():
        pass


def test_a_library_that_is_made_again_is_not_taken_for_the_one_before(
    directory: Path, photos: Path, tmp_path: Path
) -> None:
    png = Filters(formats=("PNG",))

    def make(names: str) -> None:
        with Library.create(directory) as library, library.writer() as writer:
            writer.use_model(MODEL)
            add(writer, writer.add_folder(photos), names)

    make("ab")
    with Library.open(directory) as reader:
        before = {each.content_id for each in reader.nearest(query_for("a"), 9)}
        assert (len(before), reader.considered(png)) == (2, 0)
        directory.rename(tmp_path / "away")
        with pytest.raises(LibraryNotFound, match="photoseek index FOLDER --library"):
            reader.nearest(query_for("a"), 9)
        make("xyz")
        assert len(reader.nearest(query_for("x"), 9)) == 3
        assert reader.status().photos == 3


def test_a_library_on_a_read_only_disk_is_read(disk: Path, photos: Path) -> None:
    remount(disk, "size=50m")
    with Library.create(disk / "library") as library, library.writer() as writer:
        writer.use_model(MODEL)
        folder = writer.add_folder(photos)
        add(writer, folder, "ab")
    remount(disk, "ro")
    with Library.open(disk / "library") as reader:
        assert len(reader.nearest(query_for("a"), 9)) == reader.status().photos == 2
        assert reader.verify().findings == ("vectors.faiss: missing",)
        reader.add_thumbnail(1, THUMBNAIL)
        reader.add_match_features(MODEL, {1: tokens_of(1)})
        assert (reader.thumbnail(1), reader.match_features(MODEL, [1])) == (None, {})
        with pytest.raises(LibraryError, match="cannot be written to: Read-only"), reader.writer():
            pass
        with pytest.raises(LibraryError, match="cannot be opened for writing"):
            reader.limit_match_features(5)

        remount(disk, "rw")
        with Library.open(disk / "library") as other, other.writer() as writer:
            add(writer, folder, "c")
            assert reader.nearest(query_for("c"), 1)[0].similarity > 0.9
        assert reader.status().photos == 3


def test_a_read_only_library_whose_last_changes_are_in_its_log_is_not_read_without_them(
    disk: Path, library: Library, photos: Path
) -> None:
    remount(disk, "size=50m")
    with library.writer() as writer:
        writer.use_model(MODEL)
        add(writer, writer.add_folder(photos), "ab")
        shutil.copytree(library.directory, disk / "library")  # as a backup takes it
    (disk / "library" / "catalog.sqlite-shm").unlink()
    remount(disk, "ro")
    with pytest.raises(LibraryError, match=r"last changes are still in catalog\.sqlite-wal. Open it once"):
        Library.open(disk / "library")
    for how in ("rw", "ro"):
        remount(disk, how)
        with Library.open(disk / "library") as copy:
            assert copy.status().photos == 2


def test_a_catalog_that_another_program_holds_is_said_to_be_locked(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with library.writer() as writer, closing(sqlite3.connect(library.directory / "catalog.sqlite")) as other:
        # The wait for it to be free, which is half a minute, is cut short.
        library._engine.dispose()
        monkeypatch.setattr("indexer.library._sqlite.PATIENCE_S", 0.1)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LibraryLocked, match="Another program"):
            writer.use_model(MODEL)
        other.rollback()
        writer.use_model(MODEL)
    assert library.active_model() == MODEL
