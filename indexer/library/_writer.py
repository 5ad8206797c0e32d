"""Everything that changes the catalog."""

import contextlib
import datetime
import functools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Engine,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.library import _catalog as catalog
from indexer.library._caches import Caches
from indexer.library._current_vectors import CurrentVectors
from indexer.library._filters import INDEXED, starts_with
from indexer.library._folders import canonical, homes, prefix
from indexer.library._last_run import LastRun, load_last_run, save_last_run
from indexer.library._opening import require_catalog
from indexer.library._recording import record_contents, record_files
from indexer.library._records import IndexedFile, KnownContent, KnownFile, NewContent, Unembedded
from indexer.library._tables import Content, Embedding, Folder, ModelRow, Photo, TypicalQueries


class Writer:
    """The one writer of a library. Made by ``Library.writer()``; to be used by one thread at a time.

    Each method is one transaction: when it returns, what it did is on disk; killed before, nothing of it is.
    """

    def __init__(self, catalog_file: Path, engine: Engine, caches: Caches, vectors: CurrentVectors) -> None:
        self._catalog_file = catalog_file
        self._engine = engine
        self._caches = caches
        self._vectors = vectors
        with Session(engine) as session:
            active = catalog.active_model(session)
        self._model = None if active is None else active.identity
        self._model_id = None if active is None else active.id
        if not self.last_run().folders:  # who found a folder unchanged has forgotten them
            self._forget_contents_without_photos()

    def use_model(self, identity: ModelIdentity) -> None:
        """Vectors written from now on are of this model. The first model ever becomes the active one."""
        if self._model == identity:  # that or the active one already
            return
        with self._changing() as session:
            model = self._model_row(session, identity)
            if catalog.active_model(session) is None:
                model.active = True
            session.flush()
            self._model, self._model_id = identity, model.id

    def wants_queries(self, coming: int) -> bool:
        """Whether typical queries by the model in use are to be kept: of so many files more, an index may be made by
        them, and there are none.
        """
        with Session(self._engine) as session:
            if self._model_id is None or catalog.typical_queries(session, self._model_id) is not None:
                return False
            count = select(func.count()).where(Embedding.model_id == self._model_id)
            return session.scalars(count).one() + coming > self._vectors.exact_up_to

    def keep_queries(self, queries: NDArray[np.float32]) -> None:
        """Keep (q, 256), of unit length, of what people type, by the model in use: an index is made and measured by it.

        Raises ValueError for another shape, or values that are not finite.
        """
        if queries.ndim != 2 or queries.shape[1] != EMBEDDING_SIZE or not np.isfinite(queries).all():
            raise ValueError("queries have 256 finite values each")
        with self._changing() as session:
            session.merge(TypicalQueries(model_id=self._model_id, vectors=queries.astype("<f4").tobytes()))

    def activate(self, identity: ModelIdentity) -> None:
        """Searches use this model from now on."""
        with self._changing() as session:
            chosen = self._model_row(session, identity)
            for model in session.scalars(select(ModelRow)):
                model.active = model is chosen

    def add_folder(self, path: Path) -> int:
        """Id of an indexed folder, recorded if it was not. Links in the path are followed.

        Folders may lie in one another: a photo is recorded once, and each folder around it knows it.
        """
        path = canonical(path)
        known = self.folders()
        for folder_id, there in known.items():
            if there == path:
                return folder_id
        with self._changing() as session:
            added = Folder(path=str(path))
            session.add(added)
            session.flush()
            for folder_id in {home.folder_id for home in homes(known).values()}:
                if known[folder_id].is_relative_to(path):
                    moved = literal(prefix(path, known[folder_id]), Photo.relative_path.type).concat(
                        Photo.relative_path
                    )
                    session.execute(
                        update(Photo)
                        .where(Photo.folder_id == folder_id)
                        .values(folder_id=added.id, relative_path=moved)
                        .execution_options(synchronize_session=False)
                    )
            return added.id

    def version(self) -> tuple[str, int]:
        """The catalog's id and revision: the same as long as nothing is changed in it."""
        with Session(self._engine) as session:
            state = catalog.state(session)
            return state.library, state.revision

    def last_run(self) -> LastRun:
        """What the last run kept, if the catalog has not changed since; else nothing."""
        return load_last_run(self._catalog_file.parent, self.version())

    def keep_last_run(self, found: LastRun) -> None:
        """Keep what holds of a catalog of that version for the next run; nothing, where it cannot be written."""
        save_last_run(self._catalog_file.parent, found)

    def folders(self) -> dict[int, Path]:
        """Indexed folders by id."""
        with Session(self._engine) as session:
            return catalog.folder_paths(session)

    def indexed_files(self, folder_id: int) -> set[tuple[str, int, int]]:
        """(path, size, mtime_ns) of every file in a folder or below it that is recorded as present and indexed.

        The path is relative to that folder. Costs a tenth of what ``known_files`` does.
        """
        with Session(self._engine) as session:
            home = homes(catalog.folder_paths(session))[folder_id]
            return catalog.indexed_files(session, home)

    def known_files(self, folder_id: int, paths: Collection[str] | None = None) -> dict[str, KnownFile]:
        """Every file recorded in a folder or below it, by its path relative to that folder.

        With ``paths``, of the files that are present and indexed only those of these paths.
        """
        with Session(self._engine) as session:
            home = homes(catalog.folder_paths(session))[folder_id]
            there = [home.prefix + path for path in paths or ()]
            asked = [true()] if paths is None else [~INDEXED, *map(Photo.relative_path.in_, catalog.chunks(there))]
            found: dict[str, KnownFile] = {}
            for condition in asked:
                rows = session.execute(
                    select(
                        Photo.relative_path,
                        Photo.id,
                        Photo.size,
                        Photo.mtime_ns,
                        Photo.content_id,
                        Content.digest,
                        Photo.missing_since.is_not(None),
                        or_(Photo.failure.is_not(None), Content.failure.is_not(None)),
                        _embedded(Photo.content_id, self._model_id),
                    )
                    .outerjoin(Content, Content.id == Photo.content_id)
                    .where(Photo.folder_id == home.folder_id, starts_with(home.prefix), condition)
                )
                found |= {row[0][len(home.prefix) :]: KnownFile(*row[1:6], *map(bool, row[6:])) for row in rows}
            return found

    def find_contents(self, digests: Sequence[str]) -> dict[str, KnownContent]:
        """Those of the pictures that the catalog knows, by digest."""
        found: dict[str, tuple[int, str | None, bool]] = {}
        missing: dict[str, list[int]] = {}
        statement = _known_contents(self._model_id)
        # Asked for every photo that is read: no session, which would double what it takes.
        with self._engine.connect() as connection:
            for chunk in catalog.chunks(list(digests)):
                rows = connection.execute(statement, {"digests": chunk})
                for digest, content_id, failure, embedded, photo_id in rows:
                    found[digest] = content_id, failure, bool(embedded)
                    if photo_id is not None:
                        missing.setdefault(digest, []).append(photo_id)
        return {digest: KnownContent(*known, tuple(missing.get(digest, ()))) for digest, known in found.items()}

    def commit(self, files: Sequence[IndexedFile], contents: Sequence[NewContent]) -> None:
        """Record files and pictures, all of them or, if killed on the way, none.

        A file whose path or photo_id is known takes that row's place. Raises ValueError for a file of a picture that
        neither the catalog nor ``contents`` has, and for embeddings of a wrong shape or not finite.
        """
        if not files and not contents:
            return
        self._check(contents)
        self._fill_caches(contents)
        with self._changing() as session:
            record_contents(session, contents, self._model_id)
            record_files(session, files)

    def mark_missing(self, photo_ids: Sequence[int]) -> None:
        """The files are gone: hide them from searches, but remember them.

        A file that could never be read leaves nothing to remember, and is forgotten.
        """
        if not photo_ids:
            return
        with self._changing() as session:
            for chunk in catalog.chunks(list(photo_ids)):
                session.execute(delete(Photo).where(Photo.id.in_(chunk), Photo.content_id.is_(None)))
                session.execute(
                    update(Photo).where(Photo.id.in_(chunk), Photo.missing_since.is_(None)).values(missing_since=_now())
                )

    def refresh_vectors(self) -> None:
        """Bring vectors.faiss up to date with the catalog, by the difference."""
        with Session(self._engine) as session:
            model = catalog.active_model(session)
            if model is not None:
                self._vectors.save(session, model)

    def unembedded(self, limit: int, after: int = 0) -> list[Unembedded]:
        """At most ``limit`` present pictures without a vector of the model in use, with content ids above ``after``."""
        with Session(self._engine) as session:
            roots = catalog.root_paths(session)
            first = (
                select(func.min(Photo.id))
                .where(Photo.content_id == Content.id, Photo.missing_since.is_(None), Photo.failure.is_(None))
                .correlate(Content)
                .scalar_subquery()
            )
            rows = session.execute(
                select(Content.id, Content.digest, Photo.id, Photo.folder_id, Photo.relative_path)
                .join(Photo, Photo.id == first)
                .where(Content.id > after, Content.failure.is_(None), ~_embedded(Content.id, self._model_id))
                .order_by(Content.id)
                .limit(limit)
            )
            return [Unembedded(row[0], row[1], row[2], roots[row[3]] / row[4]) for row in rows]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Session]:
        # SQLite would write on, into a file that has no name any more.
        require_catalog(self._catalog_file)
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session
            session.flush()
            catalog.count_change(session)

    def _model_row(self, session: Session, identity: ModelIdentity) -> ModelRow:
        wanted = {"name": identity.name, "revision": identity.revision, "digest": identity.digest}
        model = session.scalars(select(ModelRow).filter_by(**wanted)).one_or_none()
        if model is None:
            model = ModelRow(**wanted, active=False)
            session.add(model)
        return model

    def _check(self, contents: Sequence[NewContent]) -> None:
        for content in contents:
            if content.embeddings is None:
                continue
            if self._model_id is None:
                raise ValueError("embeddings of no model: call use_model first")
            if content.embeddings.shape != (QUERY_TOKENS, EMBEDDING_SIZE) or content.embeddings.dtype != np.float16:
                raise ValueError(f"embeddings of {content.digest}: float16 (32, 256) expected")
            if not np.isfinite(content.embeddings).all():
                raise ValueError(f"embeddings of {content.digest} are not finite")

    def _fill_caches(self, contents: Sequence[NewContent]) -> None:
        for content in contents:
            if content.thumbnail is not None:
                self._caches.thumbnails.put(content.digest, content.thumbnail)
        tokens = {content.digest: content.tokens for content in contents if content.tokens is not None}
        if tokens and self._model is not None:
            with Session(self._engine) as session:
                limit = catalog.state(session).match_cache_bytes
            self._caches.put_features(self._model, tokens, limit)

    def _forget_contents_without_photos(self) -> None:
        # Only when no run is under way: a run may have asked for a picture that it is about to record a file of.
        lonely = ~exists().where(Photo.content_id == Content.id)
        with Session(self._engine) as session:
            # To count those that have photos takes a seventh of the time of looking for one without.
            used = session.scalar(select(func.count(Photo.content_id.distinct())))
            if used == session.scalar(select(func.count()).select_from(Content)):
                return
            digests = session.scalars(select(Content.digest).where(lonely)).all()
        if digests:
            with self._changing() as session:
                session.execute(delete(Content).where(lonely).execution_options(synchronize_session=False))
            for digest in digests:
                self._caches.forget(digest)


@functools.lru_cache(maxsize=2)
def _known_contents(model_id: int | None) -> Select[str, int, str | None, bool, int]:
    """Pictures of some "digests", once for each photo of them that is missing; whether they have vectors of the model.

    Kept, as building a statement takes longer than SQLite takes for a few pictures.
    """
    return (
        select(Content.digest, Content.id, Content.failure, _embedded(Content.id, model_id), Photo.id)
        .outerjoin(Photo, and_(Photo.content_id == Content.id, Photo.missing_since.is_not(None)))
        .where(Content.digest.in_(bindparam("digests", expanding=True)))
        .order_by(Photo.id)
    )


def _embedded(
    content_id: ColumnElement[int] | InstrumentedAttribute[int | None] | InstrumentedAttribute[int],
    model_id: int | None,
) -> ColumnElement[bool]:
    if model_id is None:
        return false()
    return exists().where(Embedding.content_id == content_id, Embedding.model_id == model_id)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
