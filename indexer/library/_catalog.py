"""What is read from the catalog, within one session: one consistent state of it."""

import dataclasses
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Text, exists, func, select, type_coerce, update
from sqlalchemy.orm import Session

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.library._filters import INDEXED, PRESENT, conditions, starts_with, within
from indexer.library._folders import Home, homes
from indexer.library._records import Filters
from indexer.library._sqlite import MAX_VARIABLES
from indexer.library._tables import CatalogState, Content, Embedding, Folder, ModelRow, Photo, TypicalQueries, unescaped

EMBEDDING_BYTES = QUERY_TOKENS * EMBEDDING_SIZE * 2

_T = TypeVar("_T")


def chunks(values: Sequence[_T], size: int = MAX_VARIABLES) -> Iterator[Sequence[_T]]:
    """The values in pieces that one statement can carry."""
    return (values[start : start + size] for start in range(0, len(values), size))


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Which catalog this is and how often it has changed."""

    library: str
    revision: int
    match_cache_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class ActiveModel:
    """The model that searches use."""

    id: int
    identity: ModelIdentity


# Straight from the driver: every search asks both, and a mapped object takes half a millisecond.
_STATE = "SELECT library, revision, match_cache_bytes FROM catalog_state"
_ACTIVE_MODEL = "SELECT id, name, revision, digest FROM model WHERE active"


def state(session: Session) -> State:
    """The catalog's one row of these."""
    ((library, revision, match_cache_bytes),) = _rows(session, _STATE)
    return State(library, revision, match_cache_bytes)


def count_change(session: Session) -> None:
    """Give the catalog another revision: part of every transaction that changes it."""
    # By any step: a catalog that is restored from a backup does not come by the same numbers again.
    step = 1 + int.from_bytes(os.urandom(4), "little")
    session.execute(update(CatalogState).values(revision=CatalogState.revision + step))


def active_model(session: Session) -> ActiveModel | None:
    """None of a library that never had one."""
    for row_id, *names in _rows(session, _ACTIVE_MODEL):
        return ActiveModel(row_id, ModelIdentity(*map(unescaped, names)))
    return None


def _rows(session: Session, statement: str) -> list[tuple[Any, ...]]:
    return cast("list[tuple[Any, ...]]", session.connection().exec_driver_sql(statement).cursor.fetchall())


def identity(model: ModelRow) -> ModelIdentity:
    """The row as the rest of PhotoSeek knows it."""
    return ModelIdentity(model.name, model.revision, model.digest)


def typical_queries(session: Session, model_id: int) -> NDArray[np.float32] | None:
    """(q, 256) by the model, of what people type; None if they were never made."""
    kept = session.get(TypicalQueries, model_id)
    return None if kept is None else np.frombuffer(kept.vectors, "<f4").reshape(-1, EMBEDDING_SIZE).astype(np.float32)


def folder_paths(session: Session) -> dict[int, Path]:
    """Indexed folders by id."""
    return {folder.id: Path(folder.path) for folder in session.scalars(select(Folder).order_by(Folder.id))}


def root_paths(session: Session) -> dict[int, Path]:
    """The outermost indexed folders: those that photos are recorded under."""
    paths = folder_paths(session)
    return {home.folder_id: paths[home.folder_id] for home in homes(paths).values()}


def indexed_files(session: Session, home: Home) -> set[tuple[str, int, int]]:
    """(path below ``home``, size, mtime_ns) of every file that is present and indexed."""
    # Straight from the driver: of 100,000 rows most of the time goes into row objects and into looking for escapes.
    rows = session.connection().execute(
        select(type_coerce(Photo.relative_path, Text), Photo.size, Photo.mtime_ns).where(
            Photo.folder_id == home.folder_id, starts_with(home.prefix), INDEXED
        )
    )
    found = cast("list[tuple[str, int, int]]", rows.cursor.fetchall())
    if any("\\" in row[0] for row in found) or home.prefix:
        found = [(unescaped(path)[len(home.prefix) :], size, mtime_ns) for path, size, mtime_ns in found]
    return set(found)


def searchable(session: Session, model_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids, ascending, of the present pictures with vectors of a model, and the checksums of those vectors."""
    present = exists().where(Photo.content_id == Embedding.content_id, Content.id == Embedding.content_id, *PRESENT)
    # Straight from the driver: of a million rows most of the time goes into row objects.
    rows = session.connection().execute(
        select(Embedding.content_id, Embedding.checksum)
        .where(Embedding.model_id == model_id, present)
        .order_by(Embedding.content_id)
    )
    found = cast("list[tuple[int, int]]", rows.cursor.fetchall())
    pairs = np.fromiter(itertools.chain.from_iterable(found), np.int64, 2 * len(found)).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def fingerprint(session: Session, model_id: int) -> list[int]:
    """Numbers that tell whether ``searchable`` is as it was, for much less work.

    The revision alone would not do: restored from a backup, a catalog of an older PhotoSeek counts as it did before.
    """
    vectors = session.execute(
        select(func.count(), func.sum(Embedding.content_id), func.sum(Embedding.checksum)).where(
            Embedding.model_id == model_id
        )
    ).one()
    files = session.execute(select(func.count(), func.sum(Photo.content_id)).where(Photo.missing_since.is_(None))).one()
    return [state(session).revision, model_id, *(int(number or 0) for number in (*vectors, *files))]


def matching(session: Session, filters: Filters) -> NDArray[np.int64]:
    """Ids of the pictures that have a present photo which passes the filters."""
    where = conditions(session, filters, root_paths(session))
    pictures = select(Content.id).join(Photo, Photo.content_id == Content.id).where(*where).distinct()
    if filters.near is None:
        return np.array(session.scalars(pictures).all(), np.int64)
    rows = session.execute(pictures.add_columns(Content.latitude, Content.longitude))
    return np.array([row[0] for row in rows if within(filters.near, row[1], row[2])], np.int64)


def embeddings(
    session: Session, model_id: int, content_ids: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float16] | None]]:
    """(32, 256) of each of the pictures that has them, by ascending id; None in place of damaged ones."""
    # 1,000 pictures are 16 MB.
    for chunk in chunks(content_ids, 1000):
        # One value to bind, however many there are: a statement of 128 variables takes 1 ms to make.
        chosen = func.json_each(json.dumps(chunk)).table_valued("value")
        rows = session.execute(
            select(Embedding.content_id, Embedding.checksum, Embedding.vectors)
            .where(Embedding.model_id == model_id, Embedding.content_id.in_(select(chosen.c.value)))
            .order_by(Embedding.content_id)
        )
        yield from ((row[0], unpack_embeddings(row[2], row[1])) for row in rows)


def sound_embeddings(
    session: Session, model_id: int, content_ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Those of the pictures that have undamaged vectors, by ascending id, and their (n, 32, 256)."""
    found = [(i, v) for i, v in embeddings(session, model_id, content_ids.tolist()) if v is not None]
    ids = np.array([content_id for content_id, _ in found], np.int64)
    if not found:
        return ids, np.empty((0, QUERY_TOKENS, EMBEDDING_SIZE), np.float16)
    return ids, np.stack([vectors for _, vectors in found])


def pack_embeddings(vectors: NDArray[np.float16]) -> tuple[bytes, int]:
    """The bytes that the catalog keeps of (32, 256), and their checksum."""
    data = vectors.astype("<f2", copy=False).tobytes()
    return data, zlib.crc32(data)


def unpack_embeddings(data: bytes, checksum: int) -> NDArray[np.float16] | None:
    """(32, 256); None if these are not the bytes that were stored."""
    if len(data) != EMBEDDING_BYTES or zlib.crc32(data) != checksum:
        return None
    return np.frombuffer(data, "<f2").reshape(QUERY_TOKENS, EMBEDDING_SIZE).astype(np.float16, copy=False)
