"""vectors.exact: the vectors of a large library once more, where many pictures' can be read at once."""

import contextlib
import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._catalog import EMBEDDING_BYTES
from indexer.library._vector_ids import vector_ids

_VECTOR_BYTES = EMBEDDING_BYTES // QUERY_TOKENS
_VECTORS_A_PAGE = mmap.PAGESIZE // _VECTOR_BYTES


class ExactVectors:
    """A cache of what the catalog has, that nothing depends on: what is read counts only with its catalog's checksum.

    So the file may lack pictures, be cut short, damaged, old, or of another library, and need not be in step with
    anything. The catalog reads one picture after the other; here the disk is asked for all of them before the first is
    waited for, which takes a quarter of the time where they are not in memory. Picture i has the bytes from i · 16,384
    on: its (32, 256) as little-endian fp16, as the catalog has them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return self.path.exists()

    @property
    def disk_bytes(self) -> int:
        """What it takes on the disk; pictures that it lacks take nothing."""
        return self.path.stat().st_blocks * 512 if self.exists else 0

    def write(self, content_ids: NDArray[np.int64], embeddings: NDArray[np.float16]) -> None:
        """Put down (n, 32, 256) of the pictures (n,). Raises OSError."""
        data = np.ascontiguousarray(embeddings.astype("<f2", copy=False)).reshape(len(content_ids), -1).view(np.uint8)
        with _opened(self.path, os.O_WRONLY | os.O_CREAT) as file:
            for content_id, row in zip(content_ids.tolist(), data, strict=True):
                os.pwrite(file, row.data, content_id * EMBEDDING_BYTES)

    def read(
        self, content_ids: NDArray[np.int64], checksums: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float16]]:
        """Which of the pictures (n,) are there with these checksums (n,), and (n, 32, 256); where one was never
        written, zeros.
        """
        found = np.zeros((len(content_ids), EMBEDDING_BYTES), np.uint8)
        sound = np.zeros(len(content_ids), bool)
        with contextlib.suppress(OSError), _opened(self.path, os.O_RDONLY) as file:
            offsets = (content_ids * EMBEDDING_BYTES).tolist()
            _ask_for(file, offsets, EMBEDDING_BYTES)
            for place, (offset, checksum) in enumerate(zip(offsets, checksums.tolist(), strict=True)):
                row = found[place]
                sound[place] = os.preadv(file, [row], offset) == EMBEDDING_BYTES and zlib.crc32(row) == checksum
        embeddings = found.view("<f2").reshape(-1, QUERY_TOKENS, EMBEDDING_SIZE)
        return sound, embeddings.astype(np.float16, copy=False)

    def vectors(self, content_ids: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.float16]:
        """(n, 256): of each of the pictures (n,) the vector of a query token (n,), whatever the file has there; zeros
        where it ends before.
        """
        found = np.zeros((len(content_ids), _VECTOR_BYTES), np.uint8)
        rows = vector_ids(content_ids, tokens)
        with contextlib.suppress(OSError), _opened(self.path, os.O_RDONLY) as file:
            _ask_for(file, (np.unique(rows // _VECTORS_A_PAGE) * mmap.PAGESIZE).tolist(), mmap.PAGESIZE)
            # Plain reads: of a mapping, a page takes three times as long when it is looked at for the first time.
            for place, row in enumerate(rows.tolist()):
                os.preadv(file, (found[place],), row * _VECTOR_BYTES)
        return found.view("<f2").astype(np.float16, copy=False)

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _ask_for(file: int, offsets: Sequence[int], size: int) -> None:
    """Ask the disk for all of these: read one after the other, each would be waited for."""
    if hasattr(os, "posix_fadvise"):
        for offset in offsets:
            os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)
