"""The codes of the pictures of a compressed index, a block of 32 for each."""

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS

BITS = 4
"""Of a code, for two coordinates of a vector."""
BLOCK_BYTES = QUERY_TOKENS * EMBEDDING_SIZE // 2 * BITS // 8
"""One block of FAISS's fast scan, whose blocks are of 32 vectors as well."""


class Blocks:
    """Rows of 2,048 bytes: those of vectors.faiss stay in the file, mapped, and those that came since are in memory.

    A million pictures' take 2 GB, of which a search looks at a few megabytes: so opening a library reads none of it.
    """

    def __init__(self, stored: NDArray[np.uint8]) -> None:
        """``stored``: (n, 2048), mapped copy-on-write or in memory."""
        self._stored = np.asarray(stored)
        self._more = np.empty((0, BLOCK_BYTES), np.uint8)

    def __len__(self) -> int:
        """Pictures."""
        return len(self._stored) + len(self._more)

    def take(self, rows: NDArray[np.integer], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(m, 2048) of the rows (m,), in ``out`` if that is given."""
        if out is None:
            out = np.empty((len(rows), BLOCK_BYTES), np.uint8)
        stored = rows < len(self._stored)
        if stored.all():
            # Any other mode copies once more.
            return np.take(self._stored, rows, axis=0, out=out, mode="clip")
        out[stored] = self._stored[rows[stored]]
        out[~stored] = self._more[rows[~stored] - len(self._stored)]
        return out

    def append(self, blocks: NDArray[np.uint8]) -> None:
        """Add (m, 2048) at the end."""
        before = len(self._more)
        # In place: while an index is made, this is most of the memory there is.
        self._more.resize((before + len(blocks), BLOCK_BYTES), refcheck=False)
        self._more[before:] = blocks

    def move(self, rows: NDArray[np.integer], to: NDArray[np.integer]) -> None:
        """Put the blocks of some rows in the place of others."""
        blocks = self.take(rows)
        stored = to < len(self._stored)
        self._stored[to[stored]] = blocks[stored]
        self._more[to[~stored] - len(self._stored)] = blocks[~stored]

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` rows."""
        self._stored = self._stored[:count]
        self._more.resize((count - len(self._stored), BLOCK_BYTES), refcheck=False)
