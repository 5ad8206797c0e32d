"""How a catalog comes to be, one numbered step after the other. A step that was released is never changed.

Steps are written with tables of their own, not with the models: those say how the catalog is now.
"""

import shutil
from collections.abc import Callable, Mapping
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from indexer.library import _sqlite as sqlite

Migration = Callable[[Connection], None]


def _create_tables(connection: Connection) -> None:
    metadata = MetaData()
    state = Table(
        "catalog_state",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("library", Text, nullable=False),
        Column("revision", BigInteger, nullable=False),
    )
    Table(
        "folder",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("path", Text, nullable=False),
        UniqueConstraint("path"),
        sqlite_autoincrement=True,
    )
    Table(
        "content",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("digest", Text, nullable=False),
        Column("width", Integer),
        Column("height", Integer),
        Column("format", Text),
        Column("taken_at", DateTime),
        Column("camera", Text),
        Column("latitude", Double),
        Column("longitude", Double),
        Column("failure", Text),
        UniqueConstraint("digest"),
        sqlite_autoincrement=True,
    )
    Table(
        "photo",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("folder_id", ForeignKey("folder.id"), nullable=False),
        Column("relative_path", Text, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("mtime_ns", BigInteger, nullable=False),
        Column("content_id", ForeignKey("content.id")),
        Column("failure", Text),
        Column("recorded_at", DateTime, nullable=False),
        Column("missing_since", DateTime),
        UniqueConstraint("folder_id", "relative_path"),
        Index("photo_by_content", "content_id"),
        sqlite_autoincrement=True,
    )
    Table(
        "model",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", Text, nullable=False),
        Column("revision", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("active", Boolean, nullable=False),
        UniqueConstraint("name", "revision", "digest"),
        sqlite_autoincrement=True,
    )
    Table(
        "embedding",
        metadata,
        Column("content_id", ForeignKey("content.id", ondelete="CASCADE"), primary_key=True),
        Column("model_id", ForeignKey("model.id", ondelete="CASCADE"), primary_key=True),
        Column("checksum", BigInteger, nullable=False),
        Column("vectors", LargeBinary, nullable=False),
        Index("embedding_by_model", "model_id", "content_id", "checksum"),
    )
    metadata.create_all(connection)
    connection.execute(state.insert().values(id=1, library=uuid4().hex, revision=0))


def _limit_match_features(connection: Connection) -> None:
    connection.execute(
        text("ALTER TABLE catalog_state ADD COLUMN match_cache_bytes BIGINT NOT NULL DEFAULT 4000000000")
    )
    # They are kept in another form now. It is a cache: what is asked for is made again.
    shutil.rmtree(sqlite.directory(connection) / "features", ignore_errors=True)


def _keep_typical_queries(connection: Connection) -> None:
    metadata = MetaData()
    Table("model", metadata, Column("id", Integer, primary_key=True))
    queries = Table(
        "typical_queries",
        metadata,
        Column("model_id", ForeignKey("model.id", ondelete="CASCADE"), primary_key=True),
        Column("vectors", LargeBinary, nullable=False),
    )
    queries.create(connection)


MIGRATIONS: Mapping[int, Migration] = {
    1: _create_tables,
    2: _limit_match_features,
    3: _keep_typical_queries,
}
"""By the format version that each leads to."""
FORMAT_VERSION = max(MIGRATIONS)
"""The format that this version of PhotoSeek reads and writes."""
