"""Keeps the vectors in memory, and vectors.faiss, in step with the catalog, which is the truth."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from indexer.errors import LibraryError
from indexer.library import _catalog as catalog
from indexer.library._read_write_lock import ReadWriteLock
from indexer.library._tables import ModelRow
from indexer.library._vectors import VectorIndex
from indexer.library._vectors_file import Origin, VectorsUnusable, load_vectors, save_vectors

_CHUNK = 1000


@dataclasses.dataclass(slots=True)
class _Held:
    index: VectorIndex
    origin: Origin
    revision: int
    saved_as: tuple[int, int, int] | None
    """The state of the file that the index equals; None if it equals none."""


class CurrentVectors:
    """The vectors of the active model as the catalog has them now, whatever state vectors.faiss is in.

    The file only saves the work of reading all vectors from the catalog: whatever it lacks or has too much is added
    and removed in memory, and a file that is missing, damaged or of something else is done without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = ReadWriteLock()
        self._held: _Held | None = None

    @contextlib.contextmanager
    def reading(self, session: Session, model: ModelRow) -> Iterator[VectorIndex]:
        """The index, at the session's state of the catalog or a later one; it stays as it is meanwhile."""
        state = catalog.state(session)
        origin = Origin(state.library, catalog.identity(model))
        while True:
            with self._lock.reading():
                if (held := self._held_at(origin, state.revision)) is not None:
                    yield held.index
                    return
            with self._lock.writing():
                if self._held_at(origin, state.revision) is None:
                    self._bring_up_to_date(session, model, origin, state.revision)

    def save(self, session: Session, model: ModelRow) -> None:
        """Bring vectors.faiss up to date. Raises LibraryError if it cannot be written; nothing is lost then."""
        with self.reading(session, model) as index:
            held = self._held
            if held is None or (held.saved_as is not None and held.saved_as == self._file_state()):
                return
            try:
                save_vectors(self._path, index, held.origin)
            except OSError as error:
                raise LibraryError(
                    f"{self._path} could not be written: {error.strerror or error}. "
                    "All photos are in the catalog, and searches work; only the next start takes longer."
                ) from error
            held.saved_as = self._file_state()

    def forget(self) -> None:
        """Take nothing in memory for granted: start from the file or the catalog again."""
        with self._lock.writing():
            self._held = None

    def _held_at(self, origin: Origin, revision: int) -> _Held | None:
        held = self._held
        return held if held is not None and held.origin == origin and held.revision >= revision else None

    def _bring_up_to_date(self, session: Session, model: ModelRow, origin: Origin, revision: int) -> None:
        held = self._held
        # Changed in part it would be neither the old nor the new, should reading fail on the way.
        self._held = None
        if held is None or held.origin != origin:
            held = self._start(origin)
        if _apply_difference(held.index, session, model.id):
            held.saved_as = None
        held.revision = revision
        self._held = held

    def _start(self, origin: Origin) -> _Held:
        file_state = self._file_state()
        try:
            return _Held(load_vectors(self._path, origin), origin, -1, file_state)
        except VectorsUnusable:
            return _Held(VectorIndex(), origin, -1, None)

    def _file_state(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def difference(
    index: VectorIndex, wanted: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Content ids to remove from the index, and to add to it, so that it holds what is wanted (ids, checksums)."""
    ids, checksums = wanted
    places = np.minimum(np.searchsorted(ids, index.content_ids), max(len(ids) - 1, 0))
    if len(ids):
        right = (ids[places] == index.content_ids) & (checksums[places] == index.checksums)
    else:
        right = np.zeros(len(index), bool)
    return index.content_ids[~right], np.setdiff1d(ids, index.content_ids[right], assume_unique=True)


def _apply_difference(index: VectorIndex, session: Session, model_id: int) -> bool:
    wanted = catalog.searchable(session, model_id)
    gone, new = difference(index, wanted)
    if len(gone):
        index.remove(gone)
    checksum_of = dict(zip(wanted[0].tolist(), wanted[1].tolist(), strict=True)) if len(new) else {}
    added = 0
    for chunk in catalog.chunks(new.tolist(), _CHUNK):
        # A picture of which the vectors are damaged in the catalog is left out; verify tells, and repairs.
        sound = [(i, v) for i, v in catalog.embeddings(session, model_id, chunk) if v is not None]
        if sound:
            ids = np.array([content_id for content_id, _ in sound], np.int64)
            sums = np.array([checksum_of[content_id] for content_id, _ in sound], np.int64)
            index.add(ids, sums, np.stack([vectors for _, vectors in sound]))
            added += len(sound)
    return bool(len(gone) or added)
