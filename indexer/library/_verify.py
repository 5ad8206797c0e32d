"""Checks a library, and puts right what can be made again."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from indexer.library import _catalog as catalog
from indexer.library import _sqlite as sqlite
from indexer.library._caches import Caches, FileCache, discard, read_whole, unpack_tokens
from indexer.library._codes_files import discard_codes
from indexer.library._current_vectors import CurrentVectors, difference
from indexer.library._exact_vectors import ExactVectors
from indexer.library._filters import PRESENT
from indexer.library._last_run import FILE_NAME
from indexer.library._records import VerifyReport
from indexer.library._tables import Content, Embedding, ModelRow, Photo
from indexer.library._vectors_file import Origin, PictureIndex, VectorsUnusable, load_vectors

_CHUNK = 1000

_Pictures = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Content ids (n,) and checksums (n,) of what the catalog has."""


@dataclasses.dataclass(slots=True)
class _Findings:
    repair: bool
    found: list[str] = dataclasses.field(default_factory=list)
    repaired: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, finding: str, remedy: Callable[[], object] | None = None) -> None:
        self.found.append(finding)
        if self.repair and remedy is not None:
            remedy()
            self.repaired.append(finding)


def verify(engine: Engine, vectors_path: Path, vectors: CurrentVectors, caches: Caches, repair: bool) -> VerifyReport:
    """Check everything; with ``repair``, which the writer's lock must be held for, put right what can be."""
    findings = _Findings(repair)
    with engine.connect() as connection:
        for message in sqlite.damage(connection):
            findings.add(message)
    _check_embeddings(engine, findings)
    _check_vectors(engine, vectors_path, vectors, findings)
    _check_last_run(vectors_path.with_name(FILE_NAME), findings)
    _check_caches(engine, caches, findings)
    return VerifyReport(tuple(findings.found), tuple(findings.repaired), tuple(findings.notes))


def _check_embeddings(engine: Engine, findings: _Findings) -> None:
    with Session(engine) as session:
        for model in session.scalars(select(ModelRow)).all():
            ids = session.scalars(
                select(Embedding.content_id).where(Embedding.model_id == model.id).order_by(Embedding.content_id)
            ).all()
            bad = [content_id for content_id, values in catalog.embeddings(session, model.id, ids) if values is None]
            for content_id in bad:
                findings.add(
                    f"catalog: the {model.name} vectors of picture {content_id} are damaged; "
                    "--repair drops them, and the next photoseek index makes them again",
                    partial(_drop_embedding, engine, model.id, content_id),
                )


def _drop_embedding(engine: Engine, model_id: int, content_id: int) -> None:
    with Session(engine) as session, session.begin():
        session.execute(delete(Embedding).where(Embedding.model_id == model_id, Embedding.content_id == content_id))
        catalog.count_change(session)


def _check_vectors(engine: Engine, path: Path, vectors: CurrentVectors, findings: _Findings) -> None:
    with Session(engine) as session:
        model = catalog.active_model(session)
        if model is None:
            return
        pictures = catalog.searchable(session, model.id)
        problem = _vectors_problem(session, model, pictures, path)
        if problem is not None:
            findings.add(f"vectors.faiss: {problem}", lambda: _rebuild_vectors(engine, path, vectors))
        damaged = _damaged_exact(pictures, vectors.exact)
        if damaged:
            findings.add(
                f"vectors.exact: the vectors of {damaged} pictures are damaged",
                lambda: _rebuild_vectors(engine, path, vectors),
            )


def _vectors_problem(session: Session, model: catalog.ActiveModel, pictures: _Pictures, path: Path) -> str | None:
    try:
        index, _ = load_vectors(path, Origin(catalog.state(session).library, model.identity))
    except VectorsUnusable as reason:
        # Before the first run has ended there is none yet.
        return None if len(pictures[0]) == 0 and str(reason) == "missing" else str(reason)
    gone, new = difference(index, pictures)
    if len(gone) or len(new):
        return f"behind the catalog: {len(new)} pictures to add, {len(gone)} to remove"
    wrong = _different(session, model.id, index)
    return f"the vectors of {wrong} pictures are not those of the catalog" if wrong else None


def _different(session: Session, model_id: int, index: PictureIndex) -> int:
    wrong = 0
    for chunk in catalog.chunks(np.sort(index.content_ids).tolist(), _CHUNK):
        ids, truth = catalog.sound_embeddings(session, model_id, np.array(chunk, np.int64))
        wrong += len(chunk) - int(index.holds(ids, truth).sum())
    return wrong


def _damaged_exact(pictures: _Pictures, exact: ExactVectors) -> int:
    # Those that it lacks are no damage: they are read from the catalog.
    damaged = 0
    ids, checksums = pictures
    for start in range(0, len(ids) if exact.exists else 0, _CHUNK):
        sound, found = exact.read(ids[start : start + _CHUNK], checksums[start : start + _CHUNK])
        damaged += int((~sound & found.any(axis=(1, 2))).sum())
    return damaged


def _rebuild_vectors(engine: Engine, path: Path, vectors: CurrentVectors) -> None:
    # From the catalog alone: neither the file nor what is in memory is to be trusted.
    discard(path)
    discard_codes(path.parent)
    vectors.exact.discard()
    vectors.forget()
    with Session(engine) as session:
        model = catalog.active_model(session)
        if model is not None:
            vectors.save(session, model)


def _check_last_run(path: Path, findings: _Findings) -> None:
    try:
        whole = read_whole(path) is not None
    except FileNotFoundError:
        return
    except OSError:
        whole = False
    if not whole:
        findings.add(f"{path.name}: damaged", partial(discard, path))


def _check_caches(engine: Engine, caches: Caches, findings: _Findings) -> None:
    with Session(engine) as session:
        known = set(session.scalars(select(Content.digest)))
    dropped = False
    for name, each in caches.all().items():
        for cache in each:
            for path in cache.files():
                problem = _cache_problem(cache, path, known)
                if problem is not None:
                    findings.add(f"{name}: {path.name} {problem}", partial(discard, path))
                    dropped = findings.repair
    if dropped:
        findings.notes.append("What was dropped is made again from the photos when it is next needed.")
    _note_missing(engine, caches, findings)


def _cache_problem(cache: FileCache, path: Path, known: set[str]) -> str | None:
    digest = cache.digest_of(path)
    if digest is None:
        return "is left over"
    if digest not in known:
        return "is of a picture that is not in the catalog"
    try:
        data = read_whole(path)
        if data is not None and cache.kind == "match features":
            unpack_tokens(data)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError:
        return "is damaged"
    return "is damaged" if data is None else None


def _note_missing(engine: Engine, caches: Caches, findings: _Findings) -> None:
    """What a cache lacks is no finding: of match features only those used last are kept."""
    with Session(engine) as session:
        model = catalog.active_model(session)
        pictures = set(
            session.scalars(select(Content.digest).join(Photo, Photo.content_id == Content.id).where(*PRESENT))
        )
    if model is None:
        return
    for cache in (caches.thumbnails, caches.features_of(model.identity)):
        missing = len(pictures.difference(map(cache.digest_of, cache.files())))
        if missing:
            findings.notes.append(
                f"{cache.kind.capitalize()} missing: {missing:,} of {len(pictures):,}. They are made of the photos "
                "when next needed."
            )
