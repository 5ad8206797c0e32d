"""All that is particular to SQLite: connections, the format version, backups, integrity, and what its errors mean."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, ExceptionContext, QueuePool, create_engine, event, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from indexer.errors import LibraryDamaged, LibraryError, LibraryLocked, LibraryNotFound

MAX_VARIABLES = 30_000
"""Values that one statement may carry; SQLite's own limit is 32,766."""
PATIENCE_S = 30.0
"""How long to wait for another program that holds the catalog."""
APPLICATION_ID = 0x50536B31
"""Marks the file as a PhotoSeek catalog: "PSk1"."""


def connect(path: Path) -> Engine:
    """Engine over an existing catalog file; it never makes one. Errors of SQLite come out as errors of PhotoSeek.

    A catalog that may not be written to is read as it is, and a change of it raises LibraryError.
    """
    engine = create_engine(
        "sqlite://",
        creator=lambda: _open(path),
        poolclass=QueuePool,
        pool_size=4,
        # One connection a thread at most, and no thread should ever wait for another's.
        max_overflow=-1,
        execution_options={"catalog": path},
    )
    event.listen(engine, "connect", lambda connection, entry: _remember_file(connection, entry, path))
    event.listen(engine, "checkout", lambda _, entry, proxy: _expect_same_file(entry, proxy, path))
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", lambda context: _explain(context, path))
    return engine


def create(path: Path) -> None:
    """Make an empty catalog file in WAL mode: the mode is kept in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


class _Frozen(sqlite3.Connection):
    """A connection that takes the catalog for one that nobody writes to."""


def _open(path: Path) -> sqlite3.Connection:
    _identity(path)  # SQLite would only say that it cannot open what has been deleted
    try:
        return _connected(path, "mode=rw", sqlite3.Connection)
    except sqlite3.OperationalError as error:
        # To read in WAL mode, SQLite writes beside the catalog.
        closed = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if not closed or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise
    if _log_size(path):
        raise LibraryError(
            f"The library {path.parent} may not be written to, and its last changes are still in {path.name}-wal. Open "
            "it once where it may be written to, such as with photoseek status."
        )
    return _connected(path, "mode=ro&immutable=1", _Frozen)


def _connected(path: Path, how: str, factory: type[sqlite3.Connection]) -> sqlite3.Connection:
    # isolation_level None: Python's sqlite3 would otherwise begin transactions at statements of its own choosing, and
    # reads of one transaction would not see one state.
    connection = sqlite3.connect(
        f"{path.as_uri()}?{how}",
        uri=True,
        timeout=PATIENCE_S,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # FULL: a photo is indexed when its transaction commits, also if the power fails right after.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def _log_size(path: Path) -> int:
    """Bytes of the write-ahead log: 0 if all changes are in the catalog itself."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _remember_file(connection: object, entry: ConnectionPoolEntry, path: Path) -> None:
    entry.info["frozen"] = isinstance(connection, _Frozen)
    entry.info["file"] = _state(path, entry.info["frozen"])


def _expect_same_file(entry: ConnectionPoolEntry, _: PoolProxiedConnection, path: Path) -> None:
    # An open file outlives its name: of a library that was deleted, or replaced, it would go on to answer.
    if entry.info["file"] != _state(path, entry.info["frozen"]):
        raise InvalidatePoolError


def _state(path: Path, frozen: bool) -> tuple[int, ...]:
    """What tells whether a connection still reads the catalog of that name, and, if frozen, as it is now."""
    identity = _identity(path)
    return (*identity, path.stat().st_mtime_ns, _log_size(path)) if frozen else identity


def _identity(path: Path) -> tuple[int, int]:
    """Which file has that name now. Raises LibraryNotFound."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for every query: half the time of Path.stat
    except FileNotFoundError:
        raise absent(path) from None
    return status.st_dev, status.st_ino


def absent(path: Path) -> LibraryNotFound:
    """The error that says that a catalog is not there."""
    return LibraryNotFound(
        f"There is no library in {path.parent}. Make one with: photoseek index FOLDER --library {path.parent}"
    )


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _explain(context: ExceptionContext, path: Path) -> None:
    error = explained(context.original_exception, path)
    if error is not None:
        raise error from context.original_exception


def explained(error: BaseException, path: Path) -> LibraryError | None:
    """The error of PhotoSeek that says what an error of SQLite means for a person; None if it says nothing to them."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return LibraryDamaged(
                f"The catalog {path} is damaged ({error}). It was left as it is. "
                "Restore it from a backup, or salvage what can be read with: photoseek verify --repair"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return LibraryLocked(f"Another program has locked the catalog {path}. Close it and try again.")
        case sqlite3.SQLITE_FULL:
            return LibraryError(f"The disk that holds {path} is full. Free some space and try again; nothing is lost.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return LibraryError(
                f"The catalog {path} cannot be opened for writing ({error}). Check the folder's permissions."
            )
        case sqlite3.SQLITE_IOERR:
            return LibraryError(f"The catalog {path} cannot be read or written ({error}). Check the disk.")
    return None


def is_catalog(connection: Connection) -> bool:
    """Whether the file was made by PhotoSeek."""
    return bool(connection.execute(text("PRAGMA application_id")).scalar() == APPLICATION_ID)


def format_version(connection: Connection) -> int:
    """The number of the last migration that the catalog has been through."""
    return int(connection.execute(text("PRAGMA user_version")).scalar_one())


def directory(connection: Connection) -> Path:
    """Where the catalog file is."""
    path: Path = connection.get_execution_options()["catalog"]
    return path.parent


def set_format_version(connection: Connection, version: int) -> None:
    """Record the migration; part of the transaction."""
    connection.execute(text(f"PRAGMA user_version = {version:d}"))


def back_up(source: Path, target: Path) -> None:
    """Copy a catalog, with what is still in its write-ahead log, to a file of its own. Raises LibraryError."""
    try:
        with contextlib.closing(_open(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise explained(error, target) or LibraryError(f"{source} cannot be backed up: {error}.") from error


def damage(connection: Connection) -> Iterator[str]:
    """Say what is wrong with the catalog as a database; nothing for a sound one."""
    for (message,) in connection.execute(text("PRAGMA integrity_check")):
        if message != "ok":
            yield f"catalog: {message}"
    for row in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"catalog: row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there"
