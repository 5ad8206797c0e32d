"""The catalog's tables, as typed models. How they came to be is in ``_migrations``."""

import datetime
import re
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def unescaped(value: str) -> str:
    """What a stored `EscapedText` stands for."""
    return re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), value)


class EscapedText(TypeDecorator[str]):
    r"""Text that may hold what UTF-8 cannot: lone surrogates, as in file names that are not UTF-8, and NUL.

    Each of those, and the backslash itself, is stored as ``\uXXXX``; all else as it is.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else re.sub(r"[\\\0\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else unescaped(value)


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """A moment. Stored without a time zone, as SQLite has none; always UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(datetime.UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=datetime.UTC)


# Ids are never given twice: an id of a deleted picture may still be in some reader's vectors.
_IDS_ONCE: dict[str, Any] = {"sqlite_autoincrement": True}


class Base(DeclarativeBase):
    """Registry of the tables."""


class CatalogState(Base):
    """The one row that says which catalog this is and how often it has changed."""

    __tablename__ = "catalog_state"

    id: Mapped[int] = mapped_column(primary_key=True)
    library: Mapped[str] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(BigInteger)
    match_cache_bytes: Mapped[int] = mapped_column(BigInteger)


class Folder(Base):
    """An indexed folder."""

    __tablename__ = "folder"
    __table_args__ = (UniqueConstraint("path"), _IDS_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(EscapedText)


class Content(Base):
    """A distinct picture."""

    __tablename__ = "content"
    __table_args__ = (UniqueConstraint("digest"), _IDS_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(Text)
    width: Mapped[int | None]
    height: Mapped[int | None]
    format: Mapped[str | None] = mapped_column(Text)
    taken_at: Mapped[datetime.datetime | None]
    camera: Mapped[str | None] = mapped_column(EscapedText)
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    failure: Mapped[str | None] = mapped_column(EscapedText)


class Photo(Base):
    """A file."""

    __tablename__ = "photo"
    __table_args__ = (
        UniqueConstraint("folder_id", "relative_path"),
        Index("photo_by_content", "content_id"),
        _IDS_ONCE,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey("folder.id"))
    relative_path: Mapped[str] = mapped_column(EscapedText)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    content_id: Mapped[int | None] = mapped_column(ForeignKey("content.id"))
    failure: Mapped[str | None] = mapped_column(EscapedText)
    recorded_at: Mapped[datetime.datetime] = mapped_column(UtcDateTime)
    missing_since: Mapped[datetime.datetime | None] = mapped_column(UtcDateTime)


class ModelRow(Base):
    """A model."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("name", "revision", "digest"), _IDS_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(EscapedText)
    revision: Mapped[str] = mapped_column(EscapedText)
    digest: Mapped[str] = mapped_column(Text)
    active: Mapped[bool]


class TypicalQueries(Base):
    """What people type, by a model: an index is made and measured by it. Made again if it is lost."""

    __tablename__ = "typical_queries"

    model_id: Mapped[int] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), primary_key=True)
    vectors: Mapped[bytes] = mapped_column(LargeBinary)


class Embedding(Base):
    """The vectors of a picture, in a table of their own so that no scan of facts drags them along."""

    __tablename__ = "embedding"
    # Holds all that bringing the index up to date asks for, so that it never reads the vectors of what did not change.
    __table_args__ = (Index("embedding_by_model", "model_id", "content_id", "checksum"),)

    content_id: Mapped[int] = mapped_column(ForeignKey("content.id", ondelete="CASCADE"), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id", ondelete="CASCADE"), primary_key=True)
    checksum: Mapped[int] = mapped_column(BigInteger)
    vectors: Mapped[bytes] = mapped_column(LargeBinary)
