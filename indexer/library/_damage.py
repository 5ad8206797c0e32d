"""What proved damaged of the files that only save work, until a person has been told."""

import threading
from collections import Counter

_VECTORS = (
    "vectors.faiss was {}. The vectors were read from the catalog; an indexing run, or photoseek verify --repair, "
    "writes the file anew."
)
_FILES = "{} damaged: {:,}. They were not used, and are made again from the photos when next needed."


class Damage:
    """Collects what was found, and puts it into words. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vectors: str | None = None
        self._files: Counter[str] = Counter()

    def of_vectors(self, reason: str) -> None:
        """vectors.faiss was not used, because of that."""
        with self._lock:
            self._vectors = reason

    def of_file(self, kind: str) -> None:
        """One file of a cache was not used; ``kind``: what that cache holds, in the plural."""
        with self._lock:
            self._files[kind] += 1

    def take(self) -> tuple[str, ...]:
        """A sentence on each of them; from then on they count as told."""
        with self._lock:
            vectors, files = self._vectors, self._files
            self._vectors, self._files = None, Counter()
        told = [] if vectors is None else [_VECTORS.format(vectors)]
        return (*told, *(_FILES.format(kind.capitalize(), count) for kind, count in sorted(files.items())))
