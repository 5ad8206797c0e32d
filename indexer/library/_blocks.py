"""The codes of the pictures of a compressed index, a block of 32 for each."""

import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._codes_files import new_codes_file

BITS = 4
"""Of a code, for two coordinates of a vector."""
BLOCK_BYTES = QUERY_TOKENS * EMBEDDING_SIZE // 2 * BITS // 8
"""One block of FAISS's fast scan, whose blocks are of 32 vectors as well."""
_ROWS = 4096
"""That are copied at once: 8 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class _State:
    stored: NDArray[np.uint8]
    """(s, 2048): block i is that of picture i."""
    places: NDArray[np.int32]
    """(p,): of picture i, its place in ``more``; -1 if it is not there."""
    more: NDArray[np.uint8]
    """(m, 2048)."""


_NOTHING = _State(np.empty((0, BLOCK_BYTES), np.uint8), np.empty(0, np.int32), np.empty((0, BLOCK_BYTES), np.uint8))


class Blocks:
    """Blocks of 2,048 bytes by content id: in a file, where picture i has its own at i · 2,048, and in memory those
    that came since.

    A million pictures' take 2 GB. Opening a library waits for none of it: the file is mapped, and read into memory in
    the background when that is asked for, as looking there takes half of the time. A thousand more are written without
    the rest. Ids are not given twice; where a restored catalog does, the picture's own block comes in memory, and into
    the file before vectors.faiss says that it is there.
    """

    def __init__(self, path: Path | None = None) -> None:
        """``path``: of the file; None if there is none yet. Raises OSError."""
        self.path = path
        self._state = _NOTHING if path is None else dataclasses.replace(_NOTHING, stored=_mapped(path))
        self._unsaved = list[NDArray[np.int64]]()
        self._changing = threading.Lock()
        self._loader: threading.Thread | None = None

    @property
    def slots(self) -> int:
        """Ids below this have a place in the file."""
        return len(self._state.stored)

    def load(self) -> None:
        """Start to read the file into memory, unless that was done before."""
        with self._changing:
            if self._loader is not None or not len(self._state.stored):
                return
            self._loader = threading.Thread(target=self._load, daemon=True)
        self._loader.start()

    def take(self, content_ids: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(m, 2048) of pictures (m,) that are in it, in ``out`` if that is given."""
        if out is None:
            out = np.empty((len(content_ids), BLOCK_BYTES), np.uint8)
        state = self._state
        if not len(state.more):
            # Any other mode copies once more.
            return np.take(state.stored, content_ids, axis=0, out=out, mode="clip")
        places = np.full(len(content_ids), -1, np.int32)
        known = content_ids < len(state.places)
        places[known] = state.places[content_ids[known]]
        stored = places < 0
        out[stored] = state.stored[content_ids[stored]]
        out[~stored] = state.more[places[~stored]]
        return out

    def put(self, content_ids: NDArray[np.int64], blocks: NDArray[np.uint8]) -> None:
        """Keep (m, 2048) of the pictures (m,), in memory."""
        with self._changing:
            before = self._state
            count = len(before.more)
            places = np.full(max(len(before.places), int(content_ids.max(initial=-1)) + 1), -1, np.int32)
            places[: len(before.places)] = before.places
            places[content_ids] = np.arange(count, count + len(blocks))
            more = before.more if count else np.empty((0, BLOCK_BYTES), np.uint8)
            # In place: while an index is made, this is most of the memory there is.
            more.resize((count + len(blocks), BLOCK_BYTES), refcheck=False)
            more[count:] = blocks
            self._state = _State(before.stored, places, more)
        self._unsaved.append(content_ids)

    def save(self, directory: Path, content_ids: NDArray[np.int64]) -> Path:
        """Put what is in memory into the file, or all of the pictures (n,) into a new one if there is none; its path.

        Nothing that was in the file changes, so that who has it mapped is not disturbed. Raises OSError.
        """
        path = self.path
        if path is not None and path.exists():
            lacking = np.unique(np.concatenate([np.empty(0, np.int64), *self._unsaved]))
            lacking = lacking[np.isin(lacking, content_ids)]
        else:
            path, lacking = new_codes_file(directory), np.sort(content_ids)
        try:
            with path.open("r+b" if path.exists() else "xb") as file:
                for start in range(0, len(lacking), _ROWS):
                    some = lacking[start : start + _ROWS]
                    for content_id, block in zip(some.tolist(), self.take(some), strict=True):
                        file.seek(content_id * BLOCK_BYTES)
                        file.write(block.data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            if path != self.path:
                path.unlink(missing_ok=True)
            raise
        self.path, self._unsaved = path, []
        return path

    def _load(self) -> None:
        stored = self._state.stored
        memory = np.empty(stored.shape, np.uint8)
        for start in range(0, len(stored), _ROWS):
            memory[start : start + _ROWS] = stored[start : start + _ROWS]
        with self._changing:
            self._state = dataclasses.replace(self._state, stored=memory)


def _mapped(path: Path) -> NDArray[np.uint8]:
    rows = path.stat().st_size // BLOCK_BYTES
    return np.memmap(path, np.uint8, "r", 0, (rows, BLOCK_BYTES)) if rows else _NOTHING.stored
