"""An exact scan on a GPU, where there is one and FAISS was built for it."""

import threading

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE

MOST_NEIGHBOURS = 2048
"""A GPU index returns no more than that."""
_SCRATCH_BYTES = 64 << 20
"""What FAISS keeps of the GPU's memory to compute in; by default it would be up to 1.5 GB."""


def gpu_index() -> faiss.Index | None:
    """An empty index on the first GPU for float32 vectors, compared by their dot product; None if FAISS sees no GPU."""
    if faiss.get_num_gpus() == 0:
        return None
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    return faiss.GpuIndexFlatIP(resources, EMBEDDING_SIZE)


class GpuScan:
    """Searches a copy of an index's rows in a GPU's memory: 1 KB a row, in float32, so that it rounds as a CPU does.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._copy: faiss.Index | None = None
        self._usable = True
        # FAISS lets one thread at a time use a GPU index.
        self._lock = threading.Lock()

    def search(
        self, rows: faiss.Index, query: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Largest dot products of (256,) with ``rows``, best first, and the numbers of their rows, (count,) each.

        Since the last call rows may have been added at the end; `forget` must be told of any other change. None where
        the GPU cannot answer: there is none, too little of its memory is free, or ``count`` is too large.
        """
        if count > MOST_NEIGHBOURS:
            return None
        with self._lock:
            if not self._usable:
                return None
            try:
                if self._copy is None:
                    self._copy = gpu_index()
                if self._copy is not None:
                    return _searched(self._copy, rows, query, count)
            except RuntimeError:  # FAISS raises nothing narrower where memory does not suffice
                self._copy = None
            self._usable = False
            return None

    def forget(self) -> None:
        """Copy all rows again."""
        with self._lock:
            self._copy = None


def _searched(
    copy: faiss.Index, rows: faiss.Index, query: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if lacking := rows.ntotal - copy.ntotal:
        copy.add(rows.reconstruct_n(copy.ntotal, lacking))
    products, numbers = copy.search(query[None], count)
    return products[0], numbers[0]
