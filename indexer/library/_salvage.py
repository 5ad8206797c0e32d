"""Makes a new catalog of what can be read of a damaged one, which is kept beside it."""

import contextlib
import datetime
import itertools
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column

from indexer.errors import LibraryError, LibraryTooNew
from indexer.library import _sqlite as sqlite
from indexer.library._lock import writer_lock
from indexer.library._migrations import FORMAT_VERSION
from indexer.library._opening import catalog_path, create_catalog, require_catalog
from indexer.library._tables import Base

_TABLES = ("folder", "content", "model", "photo", "embedding")
_LEAST_BOUND = 10_000
"""Row ids up to which is looked, at least, where nothing says how many rows there were…"""
_MORE = 4
"""…and how many times the largest id that is known: rows of vectors have ids of their own."""
_DANGLING = (
    "DELETE FROM photo WHERE folder_id NOT IN (SELECT id FROM folder)",
    "DELETE FROM photo WHERE content_id NOT IN (SELECT id FROM content)",
    "DELETE FROM embedding WHERE content_id NOT IN (SELECT id FROM content)",
    "DELETE FROM embedding WHERE model_id NOT IN (SELECT id FROM model)",
    "UPDATE model SET active = (id = (SELECT id FROM model ORDER BY active DESC, id DESC LIMIT 1))",
)


def salvage(directory: Path) -> str | None:
    """Replace the catalog by a new one with all that can be read of it, if it is damaged; what was found and done.

    Raises LibraryNotFound, LibraryTooNew, LibraryLocked, and LibraryError if the disk fails.
    """
    path = catalog_path(directory)
    require_catalog(path)
    with writer_lock(directory):
        problem = _problem(path)
        if problem is None:
            return None
        room = directory / "salvage.tmp"
        shutil.rmtree(room, ignore_errors=True)
        try:
            counts, kept = _replace(path, room)
        except (LibraryError, OSError, sqlite3.Error) as error:
            raise LibraryError(
                f"The catalog {path} is damaged ({problem}), and could not be salvaged: {error}. It was left as it is. "
                "Make room on its disk for two copies of it, and repair again."
            ) from error
        finally:
            shutil.rmtree(room, ignore_errors=True)
    return (
        f"catalog: damaged ({problem}); {counts['photo']:,} photos and {counts['embedding']:,} pictures' vectors were "
        f"salvaged, and the damaged catalog is kept as {kept.name}; index the folders again for what is lacking"
    )


def _replace(path: Path, room: Path) -> tuple[dict[str, int], Path]:
    """Put a new catalog in the damaged one's place: how many rows it has, and where the damaged one is kept."""
    create_catalog(room)
    counts = _copy_rows(_copied(path, room / "damaged.sqlite"), catalog_path(room))
    kept = _keep(path)
    # A log of the damaged one would be taken for the new one's.
    for left_over in path.parent.glob(f"{path.name}-*"):
        left_over.unlink()
    catalog_path(room).replace(path)
    return counts, kept


def _problem(path: Path) -> str | None:
    """What is wrong with the catalog; None for a sound one. Reads only."""
    try:
        with contextlib.closing(_read_only(path)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application != sqlite.APPLICATION_ID or version < 1:
                return "it is not a catalog of PhotoSeek"
            if version > FORMAT_VERSION:
                raise LibraryTooNew(f"The library {path.parent} is of a newer format, {version}. Update PhotoSeek.")
            (message,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if message != "ok":
                return str(message).splitlines()[-1]
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                return "it has rows that refer to rows that are not there"
            (states,) = connection.execute("SELECT count(*) FROM catalog_state").fetchone()
            return None if states == 1 else "it does not say which catalog it is"
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            return str(error)
        raise sqlite.explained(error, path) or error from error


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=sqlite.PATIENCE_S)


def _copied(path: Path, copy: Path) -> Path:
    """A copy to read from: SQLite may write even to what it only reads, as when it recovers a log."""
    shutil.copyfile(path, copy)
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    if not _has_schema(copy):
        _lend_first_page(copy, catalog_path(copy.parent))
    return copy


def _has_schema(path: Path) -> bool:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")} >= set(_TABLES)
    return False


def _lend_first_page(path: Path, whole: Path) -> None:
    """Where the page that says where the tables are is lost: every catalog has its tables at the same places."""
    with whole.open("rb") as file:
        page = bytearray(file.read(4096))
    page[28:32] = (path.stat().st_size // len(page)).to_bytes(4, "big")
    page[32:40] = bytes(8)  # no free pages: nothing is written here
    with path.open("r+b") as file:
        file.write(page)


def _copy_rows(damaged: Path, new: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(damaged)) as old, contextlib.closing(sqlite3.connect(new)) as target:
        bound = _MORE * max(_bounds(old), default=0) + _LEAST_BOUND
        for name in _TABLES:
            columns = list(Base.metadata.tables[name].columns)
            names, marks = ", ".join(column.name for column in columns), ", ".join("?" * len(columns))
            with target:
                target.executemany(
                    f"INSERT OR IGNORE INTO {name} ({names}) VALUES ({marks})", _sound_rows(old, name, columns, bound)
                )
        with target:
            for statement in _DANGLING:
                target.execute(statement)
        counts = {
            name: int(target.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in ("photo", "embedding")
        }
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return counts


def _bounds(connection: sqlite3.Connection) -> Iterator[int]:
    for statement in ("SELECT max(seq) FROM sqlite_sequence", *(f"SELECT max(rowid) FROM {name}" for name in _TABLES)):
        with contextlib.suppress(sqlite3.Error):
            (largest,) = connection.execute(statement).fetchone()
            if isinstance(largest, int):
                yield largest


def _sound_rows(
    connection: sqlite3.Connection, table: str, columns: Sequence[Column[Any]], bound: int
) -> Iterator[tuple[Any, ...]]:
    names = ", ".join(column.name for column in columns)
    position = 0
    while position < bound:
        position += 1  # behind what was read, or what is on a page that is damaged
        with contextlib.suppress(sqlite3.Error):
            for rowid, *values in connection.execute(
                f"SELECT rowid, {names} FROM {table} WHERE rowid >= ? ORDER BY rowid", (position,)
            ):
                position = max(position, rowid)
                if all(map(_is_sound, columns, values)) and (table != "embedding" or _is_whole(values)):
                    yield tuple(values)
            return


def _is_sound(column: Column[Any], value: object) -> bool:
    kind = column.type.python_type
    if value is None:
        return bool(column.nullable)
    if kind is datetime.datetime:
        with contextlib.suppress(ValueError):
            return isinstance(value, str) and bool(datetime.datetime.fromisoformat(value))
        return False
    return isinstance(value, (int, float) if kind is float else int if kind is bool else kind)


def _is_whole(embedding: Sequence[Any]) -> bool:
    _, _, checksum, vectors = embedding
    return bool(zlib.crc32(vectors) == checksum)


def _keep(path: Path) -> Path:
    kept = next(
        name
        for number in itertools.count(1)
        if not (name := path.with_name(f"catalog.damaged-{number}.sqlite")).exists()
    )
    for suffix in ("-wal", ""):
        source = Path(f"{path}{suffix}")
        if source.exists():
            try:
                os.link(source, f"{kept}{suffix}")
            except OSError:  # a file system without links
                shutil.copyfile(source, f"{kept}{suffix}")
    return kept
