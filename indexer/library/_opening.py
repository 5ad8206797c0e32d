"""Finds, makes and brings up to date the catalog of a library directory."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from indexer.errors import LibraryDamaged, LibraryError, LibraryTooNew
from indexer.library import _sqlite as sqlite
from indexer.library._lock import writer_lock
from indexer.library._migrations import MIGRATIONS, Migration
from indexer.library._tables import CatalogState


def create_catalog(directory: Path) -> None:
    """Make the directory and an empty catalog in it, unless there is one."""
    path = catalog_path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LibraryError(f"The library {directory} cannot be made: {error.strerror or error}.") from error
    if path.exists():
        return
    # Two that make the same library at once: the second waits a moment and finds it made.
    with writer_lock(directory, wait=10):
        if not path.exists():
            _create(path)


def open_catalog(directory: Path, migrations: Mapping[int, Migration] = MIGRATIONS) -> Engine:
    """Engine over the catalog, brought to the newest format if it is of an older one."""
    path = catalog_path(directory)
    require_catalog(path)
    engine = sqlite.connect(path)
    try:
        if _checked_version(engine, path, max(migrations)) < max(migrations):
            _migrate(engine, path, migrations)
        with Session(engine) as session:
            _expect(session.get(CatalogState, 1) is not None, path)
    except DBAPIError as error:
        engine.dispose()
        raise LibraryDamaged(_damaged(path, str(error.orig))) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def require_catalog(path: Path) -> None:
    """Raise LibraryNotFound unless the catalog is there."""
    if not path.is_file():
        raise sqlite.absent(path)


def catalog_path(directory: Path) -> Path:
    """The catalog of a library directory."""
    return directory / "catalog.sqlite"


def _create(path: Path) -> None:
    # Under another name until it is whole, so that an empty catalog file is never anything but a damaged one.
    temporary = path.with_name(path.name + ".new")
    # A log that a deleted catalog left behind would be taken for the new one's.
    for left_over in (*path.parent.glob(f"{temporary.name}*"), *path.parent.glob(f"{path.name}-*")):
        left_over.unlink()
    try:
        sqlite.create(temporary)
    except (sqlite3.Error, OSError) as error:
        raise LibraryError(f"The library {path.parent} cannot be made: {error}.") from error
    engine = sqlite.connect(temporary)
    try:
        _apply(engine, MIGRATIONS, 0)
    finally:
        engine.dispose()
    temporary.replace(path)


def _checked_version(engine: Engine, path: Path, newest: int) -> int:
    with engine.connect() as connection:
        _expect(sqlite.is_catalog(connection), path)
        version = sqlite.format_version(connection)
    _expect(version > 0, path)
    if version > newest:
        raise LibraryTooNew(
            f"The library {path.parent} is of format {version}; this PhotoSeek knows formats up to {newest}. "
            "Update PhotoSeek, or choose another library with --library."
        )
    return version


def _migrate(engine: Engine, path: Path, migrations: Mapping[int, Migration]) -> None:
    with writer_lock(path.parent, wait=10):
        version = _checked_version(engine, path, max(migrations))  # another process may have been first
        if version < max(migrations):
            backup = path.with_name(f"catalog.format-{version}.sqlite")
            temporary = backup.with_name(backup.name + ".tmp")
            temporary.unlink(missing_ok=True)
            sqlite.back_up(path, temporary)
            temporary.replace(backup)
            _apply(engine, migrations, version)


def _apply(engine: Engine, migrations: Mapping[int, Migration], version: int) -> None:
    # One transaction: a migration that fails or is killed leaves the format that was.
    with engine.begin() as connection:
        for number in sorted(number for number in migrations if number > version):
            migrations[number](connection)
            sqlite.set_format_version(connection, number)


def _expect(condition: bool, path: Path) -> None:
    if not condition:
        raise LibraryDamaged(_damaged(path, "it is not a catalog of PhotoSeek"))


def _damaged(path: Path, reason: str) -> str:
    return (
        f"The catalog {path} cannot be read: {reason}. It was left as it is. "
        "Restore it from a backup, or salvage what can be read with: photoseek verify --repair"
    )
