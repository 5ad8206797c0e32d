"""A library: what is known of the photos of some folders, in one directory."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.errors import PhotoNotFound
from indexer.library import _catalog as catalog
from indexer.library import _overview as overview
from indexer.library import _photos as photos
from indexer.library._caches import Caches
from indexer.library._current_vectors import EXACT_UP_TO, CurrentVectors
from indexer.library._damage import Damage
from indexer.library._lock import ended_well, writer_lock
from indexer.library._migrations import FORMAT_VERSION
from indexer.library._opening import catalog_path, create_catalog, open_catalog, require_catalog
from indexer.library._records import (
    Facets,
    FailureRecord,
    Filters,
    LibraryStatus,
    ModelRecord,
    Neighbour,
    PhotoRecord,
    VerifyReport,
)
from indexer.library._salvage import salvage
from indexer.library._sweep import sweep
from indexer.library._tables import CatalogState, Content
from indexer.library._verify import verify
from indexer.library._writer import Writer
from indexer.tokens import QuantisedTokens


class Library:
    """One library directory. Reading needs no lock; safe to use from several threads.

    What it answers is always of the catalog as it is at that moment, whoever changes it meanwhile. Any method may raise
    LibraryDamaged if the catalog proves unreadable, and LibraryError if the disk fails.
    """

    def __init__(self, directory: Path, exact_up_to: int = EXACT_UP_TO) -> None:
        self.directory = directory.absolute()
        self._engine = open_catalog(self.directory)
        self._damage = Damage()
        self._caches = Caches(self.directory, self._damage)
        self._vectors_path = self.directory / "vectors.faiss"
        self._vectors = CurrentVectors(self._vectors_path, self._damage, exact_up_to)
        self._last_match: tuple[tuple[str, int, Filters], NDArray[np.int64]] | None = None

    @classmethod
    def open(cls, directory: Path, exact_up_to: int = EXACT_UP_TO) -> "Library":
        """Open a library; one of an older format is migrated, after a backup of its catalog.

        exact_up_to: up to how many distinct pictures searches compare every vector. Of more, they look for candidates
        by a compressed index. Raises LibraryNotFound, LibraryTooNew, or LibraryDamaged.
        """
        return cls(directory, exact_up_to)

    @classmethod
    def create(cls, directory: Path) -> "Library":
        """Open a library, made first if there is none. Raises as ``open``, and LibraryError if it cannot be made."""
        create_catalog(directory.absolute())
        return cls(directory)

    @classmethod
    def repair(cls, directory: Path) -> VerifyReport:
        """As ``verify`` with ``repair``, for a library that may not even open.

        Of a damaged catalog, what can be read goes into a new one; the damaged one is kept beside it. Raises as
        ``open``, and LibraryLocked if another process writes.
        """
        salvaged = salvage(directory.absolute())
        with cls.open(directory) as library:
            report = library.verify(repair=True)
        found = () if salvaged is None else (salvaged,)
        return VerifyReport((*found, *report.findings), (*found, *report.repaired), report.notes)

    def close(self) -> None:
        """Let go of the files."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def writer(self) -> Iterator[Writer]:
        """Change the library.

        Raises LibraryLocked at once if another process, or thread, does, and LibraryNotFound if it was deleted.
        """
        catalog_file = catalog_path(self.directory)
        require_catalog(catalog_file)
        with writer_lock(self.directory) as well:
            writer = Writer(catalog_file, self._engine, self._caches, self._vectors)
            if not well:
                sweep(self._engine, self._caches)
            yield writer
            ended_well(self.directory)

    def active_model(self) -> ModelIdentity | None:
        """The model that searches use; None for a library that never had one."""
        with Session(self._engine) as session:
            model = catalog.active_model(session)
            return None if model is None else model.identity

    def models(self) -> list[ModelRecord]:
        """The models whose vectors it holds."""
        with Session(self._engine) as session:
            return overview.models(session)

    def photo(self, photo_id: int) -> PhotoRecord:
        """One photo. Raises PhotoNotFound, also if its file is recorded as missing or could not be indexed."""
        with Session(self._engine) as session:
            return photos.photo(session, photo_id)

    def photos_of(self, content_ids: Sequence[int], filters: Filters = Filters()) -> dict[int, list[PhotoRecord]]:  # noqa: B008
        """Present files of each of the pictures that pass the filters, by path; no entry for a picture without any."""
        with Session(self._engine) as session:
            return photos.photos_of(session, content_ids, filters)

    def folders(self) -> list[Path]:
        """Every indexed folder, by path."""
        with Session(self._engine) as session:
            return sorted(catalog.folder_paths(session).values())

    def failures(self) -> list[FailureRecord]:
        """Files that could not be indexed, by path."""
        with Session(self._engine) as session:
            return photos.failures(session)

    def facets(self) -> Facets:
        """What the present photos can be filtered by."""
        with Session(self._engine) as session:
            return overview.facets(session)

    def status(self) -> LibraryStatus:
        """What the library holds. Sizes are read from the disk, file by file."""
        with Session(self._engine) as session:
            model = catalog.active_model(session)
            embedded = 0 if model is None else len(catalog.searchable(session, model.id)[0])
            kind, ram_bytes, recall = self._vectors.described(embedded)
            return LibraryStatus(
                directory=self.directory,
                format_version=FORMAT_VERSION,
                **overview.counts(session),
                folders=overview.folder_statuses(session),
                model=None if model is None else model.identity,
                vectors=embedded * QUERY_TOKENS,
                index_kind=kind,
                index_ram_bytes=ram_bytes,
                index_recall=recall,
                bytes=self._sizes(),
                match_features=sum(1 for cache in self._caches.all()["match_features"] for _ in cache.files()),
                match_cache_bytes=catalog.state(session).match_cache_bytes,
            )

    def nearest(self, query: NDArray[np.float32], k: int, filters: Filters = Filters()) -> list[Neighbour]:  # noqa: B008
        """The k pictures most similar to the query, best first, of those with a present photo that passes the filters.

        query: (256,) unit length. The similarity is the largest of the 32 dot products with the fp16 vectors of the
        active model; equal similarities are ordered by content id. The result is exact, or, in a library of more
        pictures than are compared one by one, of nearly all that belong in it: ``status`` says how many of ten. Raises
        ValueError for a query of another shape or that is not finite.
        """
        if query.shape != (EMBEDDING_SIZE,) or not np.isfinite(query).all():
            raise ValueError("a query has 256 finite values")
        with Session(self._engine) as session:
            model = catalog.active_model(session)
            if model is None or k <= 0:
                return []
            among = self._matching(session, filters)
            with self._vectors.reading(session, model) as index:
                return index.nearest(
                    query.astype(np.float32, copy=False), k, among, self._vectors.reader(session, model.id)
                )

    def considered(self, filters: Filters = Filters()) -> int:  # noqa: B008
        """Distinct pictures that a search with these filters looks at."""
        with Session(self._engine) as session:
            model = catalog.active_model(session)
            if model is None:
                return 0
            among = self._matching(session, filters)
            with self._vectors.reading(session, model) as index:
                return index.count(among)

    def embeddings(self, content_ids: Sequence[int]) -> NDArray[np.float16]:
        """(n, 32, 256) of the active model, from the catalog.

        Raises PhotoNotFound if one of the pictures has none.
        """
        with Session(self._engine) as session:
            model = catalog.active_model(session)
            found = {} if model is None else dict(catalog.embeddings(session, model.id, list(set(content_ids))))
        stacked = np.empty((len(content_ids), QUERY_TOKENS, EMBEDDING_SIZE), np.float16)
        for place, content_id in enumerate(content_ids):
            vectors = found.get(content_id)
            if vectors is None:
                raise PhotoNotFound(f"Picture {content_id} has no vectors of the active model. Index its folder again.")
            stacked[place] = vectors
        return stacked

    def match_features(self, model: ModelIdentity, content_ids: Sequence[int]) -> dict[int, QuantisedTokens]:
        """Tokens by that model, of those pictures for which they are cached."""
        with Session(self._engine) as session:
            digests = _digests(session, content_ids)
        found = {content_id: self._caches.features(model, digest) for content_id, digest in digests.items()}
        return {content_id: tokens for content_id, tokens in found.items() if tokens is not None}

    def add_match_features(self, model: ModelIdentity, tokens: Mapping[int, QuantisedTokens]) -> None:
        """Cache tokens by that model, by content id. Needs no writer: a cache is not the truth."""
        with Session(self._engine) as session:
            digests = _digests(session, list(tokens))
            limit = catalog.state(session).match_cache_bytes
        by_digest = {digest: tokens[content_id] for content_id, digest in digests.items()}
        self._caches.put_features(model, by_digest, limit)

    def limit_match_features(self, limit: int) -> None:
        """Keep at most so many bytes of match features, from now on and whoever writes. Needs no writer, as above."""
        with Session(self._engine) as session, session.begin():
            session.execute(update(CatalogState).values(match_cache_bytes=limit))
        self._caches.limit_features(limit)

    def thumbnail(self, content_id: int) -> bytes | None:
        """WebP, longest side 512 pixels; None if it is not cached."""
        with Session(self._engine) as session:
            digest = _digests(session, [content_id]).get(content_id)
        return None if digest is None else self._caches.thumbnails.get(digest)

    def add_thumbnail(self, content_id: int, webp: bytes) -> None:
        """Cache a thumbnail. Needs no writer: a cache is not the truth."""
        with Session(self._engine) as session:
            digest = _digests(session, [content_id]).get(content_id)
        if digest is not None:
            self._caches.thumbnails.put(digest, webp)

    def take_notes(self) -> tuple[str, ...]:
        """What a person should know of files that proved damaged and were done without: a sentence each, told once."""
        return self._damage.take()

    def verify(self, repair: bool = False) -> VerifyReport:
        """Check the catalog, the vectors against it, value by value, and the caches.

        With ``repair``, what can be made again is: vectors.faiss from the catalog; damaged vectors are dropped, and the
        next indexing run makes them again; damaged cache files are dropped, and made again when they are next needed.
        Raises LibraryLocked if another process writes meanwhile.
        """
        with writer_lock(self.directory) if repair else contextlib.nullcontext():
            return verify(self._engine, self._vectors_path, self._vectors, self._caches, repair)

    def _matching(self, session: Session, filters: Filters) -> NDArray[np.int64] | None:
        # Kept for the next search: one page after the other, or a search and how many photos it considered.
        if filters == Filters():
            return None
        state = catalog.state(session)
        key = (state.library, state.revision, filters)
        last = self._last_match
        if last is None or last[0] != key:
            last = self._last_match = (key, catalog.matching(session, filters))
        return last[1]

    def _sizes(self) -> dict[str, int]:
        files = catalog_path(self.directory)
        sizes = {
            "catalog": sum(path.stat().st_size for path in self.directory.glob(f"{files.name}*")),
            "vectors": self._vectors.disk_bytes,
        }
        return sizes | {name: sum(cache.size() for cache in caches) for name, caches in self._caches.all().items()}


def _digests(session: Session, content_ids: Sequence[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in catalog.chunks(content_ids):
        rows = session.execute(select(Content.id, Content.digest).where(Content.id.in_(chunk)))
        found |= {row[0]: row[1] for row in rows}
    return found
