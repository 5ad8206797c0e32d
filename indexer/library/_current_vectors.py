"""Keeps the vectors in memory, and vectors.faiss, in step with the catalog, which is the truth."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from indexer.errors import LibraryError
from indexer.library import _catalog as catalog
from indexer.library._codes_files import codes_bytes
from indexer.library._compressed import (
    COMPRESSED_KIND,
    RAM_BYTES,
    TRAINING_PICTURES,
    CompressedIndex,
    Exact,
)
from indexer.library._damage import Damage
from indexer.library._exact_vectors import ExactVectors
from indexer.library._read_write_lock import ReadWriteLock
from indexer.library._vectors import EXACT_KIND, EXACT_RAM_BYTES, VectorIndex
from indexer.library._vectors_file import (
    Origin,
    PictureIndex,
    VectorsDamaged,
    VectorsUnusable,
    describe_vectors,
    load_vectors,
    save_vectors,
    saved_at,
)

EXACT_UP_TO = 20_000
"""Pictures that are scanned exactly: a scan of so many takes about a tenth of a second, and 0.3 GB of memory."""
_LEAST_TRAINING = 32
"""Pictures that a compressed index can be made of, at least."""
_CHUNK = 1000


@dataclasses.dataclass(slots=True)
class _Held:
    index: PictureIndex
    origin: Origin
    revision: int
    saved_as: tuple[int, int, int] | None
    """The state of the file that the index equals; None if it equals none."""
    added: list[NDArray[np.int64]] = dataclasses.field(default_factory=list)
    """Pictures that are not in vectors.exact yet, as far as is known."""


class CurrentVectors:
    """The vectors of the active model as the catalog has them now, whatever state vectors.faiss is in.

    The file only saves the work of reading all vectors from the catalog: whatever it lacks or has too much is added
    and removed in memory, and a file that is missing, damaged or of something else is done without. So is
    vectors.exact, from which a compressed index rescores what it finds.
    """

    def __init__(self, path: Path, damage: Damage, exact_up_to: int = EXACT_UP_TO) -> None:
        """``damage`` is told of a damaged file. ``exact_up_to``: pictures of which all vectors are kept and compared;
        of more, a compressed index is made.
        """
        self._path = path
        self.exact = ExactVectors(path.with_name("vectors.exact"))
        """Kept for a compressed index."""
        self._damage = damage
        self.exact_up_to = max(exact_up_to, _LEAST_TRAINING)
        self._lock = ReadWriteLock()
        self._held: _Held | None = None

    @contextlib.contextmanager
    def reading(self, session: Session, model: catalog.ActiveModel) -> Iterator[PictureIndex]:
        """The index, at the session's state of the catalog or a later one; it stays as it is meanwhile."""
        state = catalog.state(session)
        origin = Origin(state.library, model.identity)
        while True:
            with self._lock.reading():
                if (held := self._held_at(origin, state.revision)) is not None:
                    yield held.index
                    return
            with self._lock.writing():
                if self._held_at(origin, state.revision) is None:
                    self._bring_up_to_date(session, model, origin, state.revision)

    def save(self, session: Session, model: catalog.ActiveModel) -> None:
        """Bring vectors.faiss up to date; make another index first if the library has become too large, or too small,
        for the one there is. Searches go on with that meanwhile.

        Raises LibraryError if the file cannot be written; nothing is lost then.
        """
        if self._held is None and self._is_current(session, model):
            return
        with self.reading(session, model) as index:
            due = self._unfit(session, model.id, index)
        if due:
            self._replace(session, model)
        with self.reading(session, model):
            held = self._held
        if held is not None:
            with _told(self.exact.path):
                self._save_exact(session, model.id, held)
        with self.reading(session, model) as index:
            held = self._held
            if held is None or (held.saved_as is not None and held.saved_as == self._file_state()):
                return
            fingerprint = catalog.fingerprint(session, model.id)
            same = held.revision == catalog.state(session).revision
            with _told(self._path):
                save_vectors(self._path, index, held.origin, fingerprint if same else None)
            held.saved_as = self._file_state()

    def reader(self, session: Session, model_id: int) -> Exact:
        """Reads exact embeddings; pictures that are not there, or damaged in the catalog, are left out."""
        return _Reader(session, model_id, self.exact)

    def described(self, pictures: int) -> tuple[str, int, float | None]:
        """Kind of the index, bytes of memory a picture, and recall of the best ten; as last saved, if none is held."""
        held = self._held
        if held is None:
            widths = describe_vectors(self._path)
        else:
            widths = held.index.widths if isinstance(held.index, CompressedIndex) else None
        if widths is not None:
            return COMPRESSED_KIND, RAM_BYTES, widths.recall
        if held is None and pictures > self.exact_up_to:  # it has not been made yet
            return COMPRESSED_KIND, RAM_BYTES, None
        return EXACT_KIND, EXACT_RAM_BYTES, 1.0

    @property
    def disk_bytes(self) -> int:
        """What the files take."""
        state = self._file_state()
        return self.exact.disk_bytes + codes_bytes(self._path.parent) + (0 if state is None else state[1])

    def forget(self) -> None:
        """Take nothing in memory for granted: start from the file or the catalog again."""
        with self._lock.writing():
            self._held = None

    def _held_at(self, origin: Origin, revision: int) -> _Held | None:
        held = self._held
        return held if held is not None and held.origin == origin and held.revision >= revision else None

    def _bring_up_to_date(self, session: Session, model: catalog.ActiveModel, origin: Origin, revision: int) -> None:
        held = self._held
        # Changed in part it would be neither the old nor the new, should reading fail on the way.
        self._held = None
        if held is None or held.origin != origin:
            held = self._start(session, model, origin)
        if held.revision < revision:
            gone, added = _apply_difference(held.index, session, model.id)
            # A compressed index is saved even if nothing differs: else every process to come would find that out again,
            # which takes 2 s of a million pictures. Of few it takes less time than saving.
            if len(gone) or len(added) or isinstance(held.index, CompressedIndex):
                held.saved_as = None
                held.added.append(added)
        held.revision = revision
        self._held = held

    def _start(self, session: Session, model: catalog.ActiveModel, origin: Origin) -> _Held:
        file_state = self._file_state()
        try:
            index, fingerprint = load_vectors(self._path, origin)
        except VectorsUnusable as reason:
            if isinstance(reason, VectorsDamaged):
                self._damage.of_vectors(str(reason))
            index = self._made(session, model.id)
            return _Held(index, origin, -1, None, [index.content_ids.copy()])
        if fingerprint is not None and fingerprint == catalog.fingerprint(session, model.id):
            return _Held(index, origin, catalog.state(session).revision, file_state)
        return _Held(index, origin, -1, file_state)

    def _is_current(self, session: Session, model: catalog.ActiveModel) -> bool:
        """Whether the file need not be read to know that there is nothing to save."""
        # The revision alone: were it of a catalog that was restored since, the next search would find that out.
        state = catalog.state(session)
        saved = saved_at(self._path, Origin(state.library, model.identity))
        if saved is None:
            return False
        revision, pictures, compressed = saved
        least, most = (self.exact_up_to / 2, math.inf) if compressed else (0, self.exact_up_to)
        return revision == state.revision and least <= pictures <= most and compressed == self.exact.exists

    def _unfit(self, session: Session, model_id: int, index: PictureIndex) -> bool:
        if not isinstance(index, CompressedIndex):
            return len(index) > self.exact_up_to
        could_be_typical = not index.widths.typical and catalog.typical_queries(session, model_id) is not None
        return index.outgrown or could_be_typical or 2 * len(index) < self.exact_up_to

    def _replace(self, session: Session, model: catalog.ActiveModel) -> None:
        state = catalog.state(session)
        origin, revision = Origin(state.library, model.identity), state.revision
        index = self._made(session, model.id)
        with self._lock.writing():
            self._held = _Held(index, origin, revision, None, [index.content_ids.copy()])

    def _made(self, session: Session, model_id: int) -> PictureIndex:
        """A new index of all that the catalog has."""
        content_ids, _ = catalog.searchable(session, model_id)
        index: PictureIndex = VectorIndex()
        if len(content_ids) > self.exact_up_to:
            some = np.random.default_rng(0).permutation(content_ids)[:TRAINING_PICTURES]
            sound, embeddings = catalog.sound_embeddings(session, model_id, some)
            if len(sound) >= _LEAST_TRAINING:  # else nearly all are damaged in the catalog
                queries = catalog.typical_queries(session, model_id)
                index = CompressedIndex.trained(embeddings, len(content_ids), queries)
        _apply_difference(index, session, model_id)
        if isinstance(index, CompressedIndex):
            index.choose_widths()
        return index

    def _save_exact(self, session: Session, model_id: int, held: _Held) -> None:
        # Before vectors.faiss: what that has not yet is added anew by the next writer, should this one be killed.
        if not isinstance(held.index, CompressedIndex):
            self.exact.discard()
            return
        count = len(held.added)
        lacking = (
            np.unique(np.concatenate([np.empty(0, np.int64), *held.added]))
            if self.exact.exists
            else np.sort(held.index.content_ids)
        )
        for start in range(0, len(lacking), _CHUNK):
            self.exact.write(*catalog.sound_embeddings(session, model_id, lacking[start : start + _CHUNK]))
        del held.added[:count]

    def _file_state(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    session: Session
    model_id: int
    exact: ExactVectors

    def vectors(self, content_ids: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.float16]:
        return self.exact.vectors(content_ids, tokens)

    def embeddings(
        self, content_ids: NDArray[np.int64], checksums: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        sound, found = self.exact.read(content_ids, checksums)
        if sound.all():
            return content_ids, found
        others, more = catalog.sound_embeddings(self.session, self.model_id, content_ids[~sound])
        return np.concatenate([content_ids[sound], others]), np.concatenate([found[sound], more])


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say of an OSError what it means for a person."""
    try:
        yield
    except OSError as error:
        raise LibraryError(
            f"{path} could not be written: {error.strerror or error}. "
            "All photos are in the catalog, and searches work; only starting and searching take longer."
        ) from error


def difference(
    index: PictureIndex, wanted: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Content ids to remove from the index, and to add to it, so that it holds what is wanted (ids, checksums)."""
    ids, checksums = wanted
    places = np.minimum(np.searchsorted(ids, index.content_ids), max(len(ids) - 1, 0))
    if len(ids):
        right = (ids[places] == index.content_ids) & (checksums[places] == index.checksums)
    else:
        right = np.zeros(len(index), bool)
    return index.content_ids[~right], np.setdiff1d(ids, index.content_ids[right], assume_unique=True)


def _apply_difference(
    index: PictureIndex, session: Session, model_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pictures that were removed, and those that were added."""
    wanted, checksums = catalog.searchable(session, model_id)
    gone, new = difference(index, (wanted, checksums))
    if len(gone):
        index.remove(gone)
    added = [new[:0]]
    for start in range(0, len(new), _CHUNK):
        # A picture of which the vectors are damaged in the catalog is left out; verify tells, and repairs.
        ids, embeddings = catalog.sound_embeddings(session, model_id, new[start : start + _CHUNK])
        if len(ids):
            index.add(ids, checksums[np.searchsorted(wanted, ids)], embeddings)
            added.append(ids)
    if isinstance(index, CompressedIndex):
        index.keep_recall()
    return gone, np.concatenate(added)
